"""Tables of what comes to training and decoding: starting, larger inputs, preprocessing and saving."""

from tables.cells import Result, spread


def startup(results: dict[str, Result]) -> list[str]:
    """Seconds of small commands."""
    lines = ["| what | command | seconds |", "| --- | --- | --- |"]
    told = {"help": "its help", "score": "BLEU of 1,000 lines", "translate": "one line", "phases": "of one line, ours"}
    for group, rows in results.get("startup", {}).get("seconds", {}).items():
        mark = "" if group == "phases" else "`"
        lines += [f"| {told[group]} | {mark}{name}{mark} | {spread(row, '.2f')} |" for name, row in rows.items()]
    for result in results.values():
        for row in result["engines"] if result["benchmark"] == "translate_lines" else []:
            engine = row["engine"].replace(":", ", ")
            lines.append(f"| one line, any toolkit | {engine} | {spread(row['whole_seconds'], '.2f')} |")
    return lines


def growth(results: dict[str, Result]) -> list[str]:
    """First and last point of each curve, and all of the processes."""
    lines = ["| by | from … to | of | ms by 1,000 target tokens | peak memory, MB |", "| --- | --- | --- | --- | --- |"]
    for name, result in results.items():
        if not result["benchmark"].startswith("growth"):
            continue
        question = name.removeprefix("growth_")
        for task, rows in result["found"].items():
            ends = list(rows.items())
            if question != "processes":
                ends = [ends[0], ends[-1]]
            values = " … ".join(f"{int(value):,}" if value.isdecimal() else value for value, _ in ends)
            times = " … ".join(f"{row['ms_per_1000_tokens']:,.0f}" for _, row in ends)
            peaks = " … ".join(f"{row['peak_mb']:,}" for _, row in ends)
            lines.append(f"| {question} | {values} | {task} | {times} | {peaks} |")
    return lines


def preprocess(results: dict[str, Result]) -> list[str]:
    """Time and memory by the size of the corpus."""
    lines = [
        "| pairs | SentencePiece | `s2s preprocess`, vocabulary reused | ratio | its peak memory | training the vocabulary too |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in results.get("preprocess", {}).get("sizes", []):
        reuse, train = row["reuse"], row["train"]
        cells = [f"{row['pairs'] / 1e6:g} M", f"{row['encode']['seconds']:.1f} s", f"{reuse['seconds']:.1f} s"]
        cells += [f"{reuse['over_encode']:.2f}", f"{reuse['peak_mb']:.0f} MB"]
        lines.append(f"| {' | '.join(cells)} | {train['seconds']:.1f} s, {train['peak_mb']:.0f} MB |")
    return lines


def saving(results: dict[str, Result]) -> list[str]:
    """What a checkpoint costs."""
    lines = [
        "| model | files | held up, a save | written in | the disk alone | an update while writing, and else |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in results.get("saving", {}).get("rows", []):
        held, written, busy, free = (
            spread(row[key], ".2f") for key in ("held up", "written", "update, while writing", "update")
        )
        cells = [
            f"`{row['shape']}`",
            f"{row['megabytes']} MB",
            f"{held} s",
            f"{written} s",
            f"{spread(row['plain'], '.2f')} s",
        ]
        lines.append(f"| {' | '.join(cells)} | {busy} s, {free} s |")
    return lines
