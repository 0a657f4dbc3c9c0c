import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from corpora import sentences, write

from s2s_cli.config import NoiseSettings, PreprocessSettings
from s2s_cli.data.dataset import Dataset
from s2s_cli.data.loader import Batch, TrainStream, collate, valid_batches
from s2s_cli.data.noise import Noise
from s2s_cli.data.preprocess import preprocess
from s2s_cli.errors import DataError


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:

    folder = tmp_path_factory.mktemp("loader")
    files = {
        name: write(folder / name, sentences(40 if "valid" in name else 230, seed))
        for seed, name in enumerate(("train_src", "train_tgt", "valid_src", "valid_tgt"))
    }
    settings = PreprocessSettings(**files, out=folder / "bin", vocab_size=400, max_ratio=100.0, workers=1)
    preprocess(settings)
    return Dataset.open(folder / "bin")


def same(a: Batch, b: Batch) -> bool:
    tensors = ("src", "src_len", "tgt_in", "tgt_out", "tgt_len")
    return all(torch.equal(getattr(a, n), getattr(b, n)) for n in tensors) and a.lines.tolist() == b.lines.tolist()


def stream(dataset: Dataset, **how: object) -> TrainStream:
    return TrainStream(dataset.train, dataset.vocabs, batch_tokens=120, seed=3, **how)  # type: ignore[arg-type]


def test_a_batch_holds_its_pairs_and_padding_only(dataset: Dataset) -> None:
    store, vocabs = dataset.train, dataset.vocabs
    indices = np.array([5, 0, 17, 3])
    batch = collate(store, indices, vocabs)
    for row, i in enumerate(indices):
        src, tgt = store.src(i).tolist(), store.tgt(i).tolist()
        num_src, num_tgt = int(batch.src_len[row]), int(batch.tgt_len[row])
        assert batch.src[row, :num_src].tolist() == [*src, vocabs.src.eos]
        assert batch.tgt_in[row, :num_tgt].tolist() == [vocabs.tgt.bos, *tgt]
        assert batch.tgt_out[row, :num_tgt].tolist() == [*tgt, vocabs.tgt.eos]
        for padding in (batch.src[row, num_src:], batch.tgt_in[row, num_tgt:], batch.tgt_out[row, num_tgt:]):
            assert set(padding.tolist()) <= {vocabs.tgt.pad}
    assert batch.lines.tolist() == [store.line(i) for i in indices]
    assert batch.num_tokens == int((batch.tgt_out != vocabs.tgt.pad).sum()) == int(batch.tgt_len.sum())
    assert batch.src.shape[1] == batch.src_len.max()
    assert batch.src.dtype == torch.int64
    assert same(batch.to("cpu"), batch)


def test_a_place_that_no_epoch_has_is_refused(dataset: Dataset) -> None:
    num = stream(dataset).num_batches(3)
    stream(dataset, position=(3, num - 1))
    with pytest.raises(DataError, match=f"epoch 3 of the training data has no batch {num}"):
        stream(dataset, position=(3, num))


def test_where_real_positions_are_is_known_without_asking_the_device(dataset: Dataset) -> None:
    """The device here holds nothing that could be read from it."""
    batch = collate(dataset.train, np.array([5, 0, 17, 3]), dataset.vocabs)
    there = batch.to("meta")
    assert there.real().shape == (batch.num_tokens,)
    assert {t.device.type for t in (there.src, there.tgt_in, there.tgt_out, there.real())} == {"meta"}
    assert torch.equal(there.src_len, batch.src_len)
    taken = batch.tgt_out.flatten()[batch.real()]
    assert torch.equal(taken, batch.tgt_out[batch.tgt_out != dataset.vocabs.tgt.pad])


def test_an_epoch_is_every_pair_once_and_then_comes_the_next(dataset: Dataset) -> None:
    reader = stream(dataset)
    for epoch in range(3):
        lines: Counter[int] = Counter()
        for number in range(reader.num_batches(epoch)):
            assert reader.position == (epoch, number)
            lines.update(reader.next().lines.tolist())
        assert lines == Counter(dataset.train.lines.tolist())
    assert reader.position == (3, 0)
    reader.close()


def test_a_resumed_stream_goes_on_as_the_first_would_have(dataset: Dataset) -> None:
    whole = stream(dataset)
    batches, positions = [], []
    for _ in range(3 * whole.num_batches(0) // 2):
        positions.append(whole.position)
        batches.append(whole.next())
    for at in (0, 1, len(batches) // 2, len(batches) - 2):
        resumed = stream(dataset, position=tuple(positions[at]))
        assert all(same(resumed.next(), batch) for batch in batches[at:])
        resumed.close()
    whole.position = positions[3]
    assert same(whole.next(), batches[3])
    whole.close()


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_ranks_share_the_batches_of_one(dataset: Dataset, world: int) -> None:
    """In turns, and on into the next epoch: nothing is read twice or left out, and the position is that of one rank."""
    readers = [stream(dataset, rank=rank, world=world) for rank in range(world)]
    straight = stream(dataset)
    num = straight.num_batches(0)
    for _ in range(2 * num // world + 2):
        assert {reader.position for reader in readers} == {straight.position}
        for reader in readers:
            assert same(reader.next(), straight.next())
    assert straight.position > (2, 0)
    for reader in (*readers, straight):
        reader.close()


def test_noise_is_resumed_too(dataset: Dataset) -> None:
    noise = Noise(NoiseSettings(subword_sampling=0.2, src_word_dropout=0.2), dataset.vocabs, seed=3)
    whole = stream(dataset, noise=noise)
    plain = stream(dataset)
    batches = [whole.next() for _ in range(6)]
    assert not any(same(batch, plain.next()) for batch in batches)
    resumed = stream(dataset, noise=noise, position=(0, 4))
    assert same(resumed.next(), batches[4])
    for reader in (whole, plain, resumed):
        reader.close()


def test_an_error_while_loading_reaches_the_reader(dataset: Dataset) -> None:
    def fails(*_: object) -> None:
        raise OSError("the disk is gone")

    reader = stream(dataset, noise=fails)
    for _ in range(2):
        with pytest.raises(OSError, match="the disk is gone"):
            reader.next()
    reader.close()


def test_closing_ends_the_thread(dataset: Dataset) -> None:
    before = threading.active_count()
    readers = [stream(dataset) for _ in range(3)]
    for reader in readers:
        reader.next()
    assert threading.active_count() == before + 3
    for reader in readers:
        reader.close()
        reader.close()
    assert threading.active_count() == before


def test_validation_is_every_pair_once_and_the_same_each_time(dataset: Dataset) -> None:
    first, second = (list(valid_batches(dataset.valid, dataset.vocabs, 120)) for _ in range(2))
    assert all(same(a, b) for a, b in zip(first, second, strict=True))
    assert sorted(np.concatenate([b.lines for b in first]).tolist()) == dataset.valid.lines.tolist()


def test_the_folder_is_only_read(dataset: Dataset, tmp_path: Path) -> None:
    assert not dataset.train.src(0).flags.writeable


def test_an_index_beyond_the_pairs_is_a_pair_again(dataset: Dataset) -> None:
    store = dataset.train
    indices = np.array([5, 0, 17, 3])
    assert same(collate(store, indices, dataset.vocabs), collate(store, indices + 2 * len(store), dataset.vocabs))
    noise = Noise(NoiseSettings(subword_sampling=0.5), dataset.vocabs, 1)
    one, other = (collate(store, indices + k * len(store), dataset.vocabs, noise) for k in range(2))
    assert one.lines.tolist() == other.lines.tolist()
    assert not same(one, other)
