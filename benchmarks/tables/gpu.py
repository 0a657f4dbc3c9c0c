"""Tables of what `gpu.py` measured, and what the summary of speed says of it."""

from tables.cells import Result, spread


def gpu_train(results: dict[str, Result]) -> list[str]:
    """Training on one GPU, each engine beside the best of transformers on the same batches."""
    lines = [
        "| card | shape | batch | engine | target tokens/s | both sides' tokens/s | ratio | peak memory | MFU |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for card, row, best in gpu_rows(results, "gpu_train", ("shape", "batch_tokens"), "tgt_tokens_per_second"):
        cells = [card, row["shape"], f"{row['batch_tokens']:,}", row["engine"], spread(row["tgt_tokens_per_second"])]
        cells += [spread(row["tokens_per_second"]), best, f"{row['peak_mb']['median'] / 1000:,.1f} GB"]
        lines.append(f"| {' | '.join(cells)} | {'' if row['mfu'] is None else format(row['mfu'], '.1%')} |")
    return lines


def gpu_decode(results: dict[str, Result]) -> list[str]:
    """Decoding on one GPU, each engine beside the best of transformers with the same weights."""
    lines = [
        "| card | shape | batch | beam | engine | output tokens/s | ratio | ms a step | ms a sentence | same in fp32 |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for card, row, best in gpu_rows(results, "gpu_decode", ("shape", "batch", "beam"), "tokens_per_second"):
        cells = [
            card,
            row["shape"],
            str(row["batch"]),
            str(row["beam"]),
            row["engine"],
            spread(row["tokens_per_second"]),
        ]
        cells += [best, f"{row['ms_per_step']['median']:.2f}", f"{row['ms_per_sentence']['median']:,.1f}"]
        lines.append(f"| {' | '.join(cells)} | {row['same_fp32']:.1%} |")
    return lines


def gpu_attention(results: dict[str, Result]) -> list[str]:
    """Kernels of attention beside each other, forwards and back."""
    found = [result for result in results.values() if result["benchmark"] == "gpu_attention"]
    kernels = list(dict.fromkeys(row["kernel"] for result in found for row in result["rows"]))
    lines = [f"| card | sentences | heads | positions | hides | {' | '.join(f'{name}, ms' for name in kernels)} |"]
    lines.append("| --- | --- | --- | --- | --- |" + " --- |" * len(kernels))
    for result in found:
        times: dict[tuple, dict[str, str]] = {}
        for row in result["rows"]:
            case = (row["rows"], row["heads"], row["positions"], row["hides"])
            times.setdefault(case, {})[row["kernel"]] = f"{row['ms']:.2f}"
        for case, here in times.items():
            cells = [result["card"].removeprefix("NVIDIA "), *case, *(here.get(name, "") for name in kernels)]
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def gpu_rows(results: dict[str, Result], part: str, case: tuple[str, ...], key: str) -> list[tuple[str, Result, str]]:
    """Card, row, and its speed over that of the fastest of transformers in the same case, if there is one."""
    found = []
    for result in results.values():
        for row in result["rows"] if result["benchmark"] == part else []:
            others = [
                other[key]["median"]
                for other in result["rows"]
                if other["engine"].startswith("transformers") and all(other[name] == row[name] for name in case)
            ]
            best = f"{row[key]['median'] / max(others):.2f}" if others else ""
            found.append((result["card"].removeprefix("NVIDIA "), row, best))
    return found


def gpu_speed(results: dict[str, Result]) -> list[str]:
    """Rows of `speed`: the faster of our ways on a GPU beside the faster of transformers'."""
    lines = []
    for part, case, key in (
        ("gpu_train", ("shape", "batch_tokens"), "tgt_tokens_per_second"),
        ("gpu_decode", ("shape", "batch", "beam"), "tokens_per_second"),
    ):
        fastest: dict[tuple, dict[bool, tuple[float, str]]] = {}
        for card, row, _ in gpu_rows(results, part, case, key):
            what = (card, *(row[name] for name in case))
            here = fastest.setdefault(what, {})
            is_ours = not row["engine"].startswith("transformers")
            here[is_ours] = max(here.get(is_ours, (0.0, "")), (row[key]["median"], row["engine"]))
        for (card, shape, *rest), here in fastest.items():
            if len(here) < 2:
                continue
            batch = f"{rest[0]:,} positions" if part == "gpu_train" else f"batch {rest[0]}, beam {rest[1]}"
            what = f"{'training' if part == 'gpu_train' else 'decoding'} `{shape}` on an {card}, {batch}, bf16"
            (ours, _), (theirs, name) = here[True], here[False]
            lines.append(f"| {what} | {ours:,.0f} | {name} {theirs:,.0f} | {ours / theirs:.2f} |")
    return lines
