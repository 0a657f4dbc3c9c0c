"""From raw text to batches: corpora, vocabularies, shards and the order in which training reads them."""
