"""Tables of decoding and translating on a CPU: speed, where the time goes, what levers are worth, and what rounding changes."""

from train import OURS

from tables.cells import Result, spread


def decode_rows(results: dict[str, Result]) -> list[tuple[str, dict]]:
    """The rows of decoding on a CPU, each after what was translated by which model. A patience is nothing to greedy search.

    The pieces of our outputs count for both engines, since what is compared is the time for the same sentences.
    """
    found = []
    for row in [row for result in results.values() if result["benchmark"] == "decode" for row in result["results"]]:
        ours, theirs = (row["output tokens/s"][engine] for engine in ("s2s", "ctranslate2"))
        share = ours["pieces"] / theirs["pieces"]
        theirs = {key: theirs[key] * share for key in ("median", "min", "max")}
        row = row | {
            "output tokens/s": {"s2s": ours, "ctranslate2": theirs},
            "ratio": ours["median"] / theirs["median"],
        }
        patience = f", patience {row['patience']:g}" if row.get("patience") else ""
        if row["model"] in (None, "None"):
            found.append((f"`{row['shape']}`", row))
        elif not patience or row["beam"] > 1:
            found.append((f"`{row['model']}`, its own lengths{patience}", row))
    return found


def decode(results: dict[str, Result]) -> list[str]:
    """Both engines, and ours over theirs."""
    lines = [
        "| model | beam | precision | s2s, output tokens/s | CTranslate2 | ratio | same outputs |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for model, row in decode_rows(results):
        speeds = [spread(row["output tokens/s"][engine]) for engine in ("s2s", "ctranslate2")]
        same = f"{row['same outputs']:.1%}"
        cells = [model, str(row["beam"]), row["precision"], *speeds, f"{row['ratio']:.2f}", same]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def decode_profile(results: dict[str, Result]) -> list[str]:
    """Shares of the time of decoding by part, and how much faster it would be if a choice among all pieces cost nothing."""
    rows = [row for result in results.values() if result["benchmark"] == "decode_profile" for row in result["rows"]]
    parts = list(dict.fromkeys(part for row in rows for part in row["shares"]))
    lines = [f"| model | beam | precision | steps, pieces | {' | '.join(parts)} | without output layer and choosing |"]
    lines.append("| --- | --- | --- | --- |" + " --- |" * (len(parts) + 1))
    for row in rows:
        model = row["shape"] + (f", patience {row['patience']:g}" if row.get("patience") else "")
        steps = f"{row['steps']:.1f}, {row['pieces']:.1f}" if "steps" in row else ""
        found = row["shares"]
        cells = [model, str(row["beam"]), row["precision"], steps, *(f"{found.get(part, 0.0):.0%}" for part in parts)]
        faster = 1.0 / (1.0 - sum(found.get(part, 0.0) for part in ("output layer", "softmax", "choosing")))
        lines.append(f"| {' | '.join(cells)} | {faster:.2f} × as fast |")
    return lines


def levers(results: dict[str, Result]) -> list[str]:
    """Speed with each lever of search over that without it, by case."""
    rows = [row for result in results.values() if result["benchmark"] == "levers" for row in result["rows"]]
    cases = list(dict.fromkeys((row["shape"], row["beam"], row["precision"]) for row in rows))
    shown = [f"{'own lengths' if shape == 'model' else shape}, beam {beam}, {kind}" for shape, beam, kind in cases]
    lines = [f"| lever | {' | '.join(shown)} |", "| --- |" + " --- |" * len(cases)]
    for lever in dict.fromkeys(row["lever"] for row in rows):
        found = {(row["shape"], row["beam"], row["precision"]): row["ratio"] for row in rows if row["lever"] == lever}
        lines.append(f"| {lever} | {' | '.join(f'{found[case]:.2f}' if case in found else '' for case in cases)} |")
    return lines


def not_taken(results: dict[str, Result]) -> list[str]:
    """What prototypes of levers that ours does not have are worth, by case."""
    rows = [row for result in results.values() if result["benchmark"] == "not_taken" for row in result["rows"]]
    lines = ["| lever | model | beam | precision | speed | besides |", "| --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        shape, vocab, besides = row.get("shape", "model"), row.get("vocab"), []
        model = "own lengths" if shape == "model" else f"`{shape}`" + (f", {vocab:,} pieces" if vocab else "")
        if "first seconds" in row:
            besides.append(f"the first pass took {row['first seconds']:.0f} s")
        if "bleu" in row:
            besides.append(f"BLEU {row['bleu']:.2f}, without {row['bleu without']:.2f}")
        if "bleu" in row or row.get("same outputs", 1.0) < 1.0:
            besides.append(f"{row['same outputs']:.1%} of the outputs are the same")
        speed = f"{row['ratio']:.2f}" if "ratio" in row else f"at most {row['at most']:.2f}"
        cells = [row["lever"], model, str(row["beam"]), row["precision"], speed, "; ".join(besides)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def translate(results: dict[str, Result]) -> list[str]:
    """Speed without load, whole commands, and memory, by shape and beam."""
    lines = [
        "| model | beam | toolkit | output tokens/s | whole command | peak memory | rounds |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, result in results.items():
        for row in result["engines"] if result["benchmark"] == "translate" else []:
            engine = row["engine"].removesuffix(":fp32") if not row["engine"].startswith(OURS) else row["engine"]
            cells = [model_of(name), str(row["beam"]), engine.replace(":", ", "), spread(row["pieces_per_second"])]
            cells += [
                f"{spread(row['whole_seconds'], '.1f')} s",
                f"{row['peak_mb']['median']:,.0f} MB",
                str(row["rounds"]),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def translate_ratios(results: dict[str, Result]) -> list[str]:
    """Ours beside the best of the toolkits in PyTorch, and beside CTranslate2, whose fp32 stands for the bf16 that it lacks."""
    lines = [
        "| model | beam | ours | output tokens/s | whole command | tokens/s beside CTranslate2 | whole command |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, result in results.items():
        if result["benchmark"] != "translate":
            continue
        engines = {(row["engine"], row["beam"]): row for row in result["engines"]}
        for row in result["ratios"]:
            precision = row["engine"].removeprefix(f"{OURS}:")
            cells = [model_of(name), str(row["beam"]), precision]
            cells += [f"{row['speed']:.2f} × {row['beside']}", f"{row['whole']:.2f} × {row['whole_beside']}"]
            ours = engines[row["engine"], row["beam"]]
            theirs = engines.get((f"ctranslate2:{precision.replace('bf16', 'fp32')}", row["beam"]))
            for key, turned in (("pieces_per_second", 1), ("whole_seconds", -1)):
                ratio = (ours[key]["median"] / theirs[key]["median"]) ** turned if theirs else None
                cells.append("" if ratio is None else f"{ratio:.2f}")
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def model_of(name: str) -> str:
    """What a result file of translating is about."""
    return name.removeprefix("translate_").replace("model", "its own lengths")


def rounding(results: dict[str, Result]) -> list[str]:
    """Lines that differ from what the same arithmetic gives in other batches, and from fp32."""
    rows = [row for result in results.values() if result["benchmark"] == "rounding" for row in result["results"]]
    ways = list(dict.fromkeys(name for row in rows for name in row if name.startswith("flipped")))
    names = [
        "model",
        "beam",
        "precision",
        "lines",
        *(f"{way.removeprefix('flipped, ')}" for way in ways),
        "unlike fp32",
        "BLEU",
    ]
    lines = [f"| {' | '.join(names)} |", "| " + " | ".join("---" for _ in names) + " |"]
    for row in rows:
        cells = [
            row.get("model", ""),
            row["beam"],
            row["precision"],
            f"{row['lines']:,}",
            *(row.get(way, "") for way in ways),
        ]
        cells.append(row["unlike fp32"])
        lines.append(f"| {' | '.join(map(str, cells))} | {row['bleu']:.2f} |")
    return lines
