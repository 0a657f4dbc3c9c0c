"""Tables of training: speed and memory beside other toolkits, and the loss after as many updates."""

from train import OURS, ratios, summary

from tables.cells import Result, spread


def train(results: dict[str, Result]) -> list[str]:
    """Speed and memory of all engines, by shape."""
    lines = [
        "| shape | toolkit | target tokens/s | both sides' tokens/s | peak memory | cores used | rounds |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, result in results.items():
        if result["benchmark"] != "train":
            continue
        engines = summary(result["rows"])
        order = sorted(engines, key=lambda engine: -engines[engine]["tgt_tokens_per_second"]["median"])
        for engine in order:
            row = engines[engine]
            shown = (
                engine.replace(":", ", ")
                if engine.startswith(OURS)
                else engine.removesuffix(":fp32").replace(":", ", ")
            )
            cores = f"{row['cores_used']['median']:.2f}" if "cores_used" in row else ""
            both = spread(row["tokens_per_second"]) if "tokens_per_second" in row else ""
            lines.append(
                f"| {name.removeprefix('train_')} | {shown} | {spread(row['tgt_tokens_per_second'])} | {both} | "
                f"{row['peak_mb']['median']:,.0f} MB | {cores} | {row['rounds']} |"
            )
    return lines


def train_ratios(results: dict[str, Result]) -> list[str]:
    """Ours beside the best of the others."""
    lines = [
        "| shape | ours | target tokens/s | both sides' tokens/s | peak memory |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, result in results.items():
        if result["benchmark"] == "train":
            for engine, row in ratios(summary(result["rows"])).items():
                cells = [f"{cell['ratio']:.2f} × {cell['beside'].removesuffix(':fp32')}" for cell in row.values()]
                shown = engine.removeprefix(f"{OURS}:")
                lines.append(f"| {name.removeprefix('train_')} | {shown} | {' | '.join(cells)} |")
    return lines


def loss(results: dict[str, Result]) -> list[str]:
    """Validation loss after as many updates."""
    lines = ["| shape | toolkit | updates | validation loss, nats a token | seeds |", "| --- | --- | --- | --- | --- |"]
    for name, result in results.items():
        if result["benchmark"] == "loss":
            shape = name.removeprefix("loss_").replace("_", " ")
            for engine, row in summary(result["rows"]).items():
                lines.append(
                    f"| {shape} | {engine.replace(':', ', ')} | {row['updates']['median']:.0f} | "
                    f"{spread(row['valid_loss'], '.3f')} | {row['rounds']} |"
                )
    return lines
