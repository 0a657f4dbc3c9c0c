"""MarianMTModel of transformers in a plain training loop: what a person writes who trains it in PyTorch.

Batches are of sentences of like length, and of 4,096 padded target tokens; attention is torch's own fused kernel, the loss
torch's cross-entropy with label smoothing.
"""

import contextlib
import json
import random
from pathlib import Path

from peers.clock import LABEL_SMOOTHING, PIECES, SENTENCES, SPECIALS, Clock, Shape, Spent, Task, act, finish, lines

PACKAGE = "transformers"
INSTALL = (["transformers==5.23.0"],)
FAMILIES = ("transformer",)
PRECISIONS = ("fp32", "bf16")
PAD, UNK, START, EOS = range(4)  # as ours
IGNORED = -100


def build(size: Shape, vocab: int):
    """The model. `scale_embedding` and sinusoidal positions as in Vaswani et al. 2017, norms after each block."""
    from transformers import MarianConfig, MarianMTModel

    return MarianMTModel(
        MarianConfig(
            vocab_size=vocab,
            decoder_vocab_size=vocab,
            d_model=size.dim,
            encoder_layers=size.layers,
            decoder_layers=size.layers,
            encoder_attention_heads=size.heads,
            decoder_attention_heads=size.heads,
            encoder_ffn_dim=size.ffn_dim,
            decoder_ffn_dim=size.ffn_dim,
            dropout=size.dropout,
            attention_dropout=0.0,
            activation_dropout=0.0,
            activation_function="relu",
            scale_embedding=True,
            max_position_embeddings=512,
            pad_token_id=PAD,
            eos_token_id=EOS,
            decoder_start_token_id=START,
            forced_eos_token_id=None,
            share_encoder_decoder_embeddings=True,
            tie_word_embeddings=True,
        )
    )


PARTS = {  # of a layer, in our names, where {} is that of attention to the layer's own side
    "self_attn.q_proj": "{}.q",
    "self_attn.k_proj": "{}.kv",
    "self_attn.v_proj": "{}.kv",
    "self_attn.out_proj": "{}.out",
    "self_attn_layer_norm": "around_{}.norm",
    "encoder_attn.q_proj": "cross_attention.q",
    "encoder_attn.k_proj": "cross_attention.kv",
    "encoder_attn.v_proj": "cross_attention.kv",
    "encoder_attn.out_proj": "cross_attention.out",
    "encoder_attn_layer_norm": "around_cross_attention.norm",
    "fc1": "feed_forward.up",
    "fc2": "feed_forward.down",
    "final_layer_norm": "around_feed_forward.norm",
}


def begin_as_ours(model, ours: dict) -> None:
    """Give `model` the first weights of our Transformer with norms after each block, and a bias of its output layer, as there."""
    import torch

    del model.final_logits_bias
    model.final_logits_bias = torch.nn.Parameter(ours["head.bias"][None])
    for name, weight in model.state_dict().items():  # what is written to these is in the model
        if ".layers." in name:
            _, side, _, layer, of_layer = name.split(".", 4)
            part, kind = of_layer.rsplit(".", 1)
            same = PARTS[part].format("attention" if side == "encoder" else "self_attention")
            value = ours[f"{side}.{layer}.{same}.{kind}"]
            if same.endswith(".kv"):
                value = value.chunk(2)["v_proj" in part]
            weight.copy_(value)
    model.get_input_embeddings().weight.data.copy_(ours["tgt_embedding.weight"])


def batches(tgt: list[list[int]], src: list[list[int]], budget: int, seed: int) -> list[list[int]]:
    """Rows of pairs in batches of like lengths, in random order."""
    chance = random.Random(seed)
    rows = list(range(len(tgt)))
    chance.shuffle(rows)
    rows.sort(key=lambda i: (len(tgt[i]), len(src[i])))
    found: list[list[int]] = [[]]
    for i in rows:
        if len(tgt[i]) * (len(found[-1]) + 1) > budget:
            found.append([])
        found[-1].append(i)
    chance.shuffle(found)
    return found


def encoded(task: Task, path: Path) -> list[list[int]]:
    """Sentences as ids, each with its end."""
    ids = {piece: i for i, piece in enumerate(task.vocabulary(), SPECIALS)}
    return [[ids.get(piece, UNK) for piece in line.split()] + [EOS] for line in lines(path)]


def padded(rows: list[list[int]], value: int):
    """Rows as one tensor."""
    import torch

    width = max(map(len, rows))
    return torch.tensor([row + [value] * (width - len(row)) for row in rows])


class Training:
    """A model and all that changes it."""

    def __init__(self, task: Task) -> None:
        import torch

        torch.set_num_threads(task.threads)
        torch.manual_seed(task.seed)
        self.torch, self.task, self.model = torch, task, build(task.size, len(task.vocabulary()) + SPECIALS)
        if task.loss_after:
            from safetensors.torch import load_file

            begin_as_ours(self.model, load_file(task.start("weights.safetensors")))
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=1e-4, betas=(0.9, 0.98), eps=1e-9, weight_decay=0.0
        )

    def loss(self, src: list[list[int]], tgt: list[list[int]], smoothing: float, reduction: str = "mean"):
        """Cross-entropy of a batch."""
        torch = self.torch
        x, y = padded(src, PAD), padded(tgt, IGNORED)
        reads = torch.cat([torch.full((len(tgt), 1), START), y[:, :-1].clamp(min=0)], dim=1)
        bf16 = self.task.precision == "bf16"
        with torch.autocast("cpu", torch.bfloat16) if bf16 else contextlib.nullcontext():
            logits = self.model(
                input_ids=x, attention_mask=(x != PAD).long(), decoder_input_ids=reads, use_cache=False
            ).logits
        cost = torch.nn.CrossEntropyLoss(ignore_index=IGNORED, label_smoothing=smoothing, reduction=reduction)
        return cost(logits.float().flatten(0, 1), y.flatten())

    def update(self, src: list[list[int]], tgt: list[list[int]]) -> None:
        """One step."""
        loss = self.loss(src, tgt, LABEL_SMOOTHING)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        loss.item()

    def valid_loss(self) -> float:
        """Nats a target token of the validation text."""
        src, tgt = (encoded(self.task, self.task.pieces(f"valid.{side}")) for side in ("en", "de"))
        self.model.eval()
        with self.torch.inference_mode():
            total = sum(
                float(self.loss([src[i] for i in rows], [tgt[i] for i in rows], 0.0, "sum"))
                for rows in batches(tgt, src, self.task.batch_tokens, 0)
            )
        return total / sum(map(len, tgt))


def begin(task: Task) -> None:
    """A model of no update."""
    import torch

    torch.manual_seed(task.seed)
    build(task.size, len(task.vocabulary()) + SPECIALS).save_pretrained(task.file("model"))


def translate(task: Task) -> None:
    """What a person writes who translates with it, batches of like length."""
    import torch
    from transformers import MarianMTModel

    torch.set_num_threads(task.threads)
    model, spent = MarianMTModel.from_pretrained(task.file("model")).eval(), Spent()
    sources, outputs = encoded(task, task.sources()), []
    pieces = ["<pad>", "<unk>", "<s>", "</s>", *task.vocabulary()]
    generate = spent.around(model.generate)
    with torch.inference_mode():
        for start in range(0, len(sources), SENTENCES):
            x = padded(sources[start : start + SENTENCES], PAD)
            found = generate(
                input_ids=x,
                attention_mask=(x != PAD).long(),
                num_beams=task.beam,
                do_sample=False,
                max_new_tokens=PIECES,
                min_new_tokens=PIECES,
            )
            outputs += [[pieces[i] for i in ids[1 : PIECES + 1]] for ids in found.tolist()]
    task.file("output", "".join(" ".join(output) + "\n" for output in outputs))
    spent.finish(outputs)


def train(task: Task) -> None:
    """Until the clock ends it, or so many updates."""
    training = Training(task)
    src, tgt = (encoded(task, task.pieces(f"train.{side}")) for side in ("en", "de"))
    training.model.train()
    if task.loss_after:
        for number, batch in enumerate(lines(task.start("batches.jsonl")), 1):
            rows = [line - 1 for line in json.loads(batch)]
            training.optimizer.param_groups[0]["lr"] = task.rate(number)
            training.update([src[i] for i in rows], [tgt[i] for i in rows])
        finish(valid_loss=training.valid_loss(), updates=number)
    clock = Clock(task)
    for epoch in range(1000):
        for rows in batches(tgt, src, task.batch_tokens, epoch):
            batch_src, batch_tgt = [src[i] for i in rows], [tgt[i] for i in rows]
            clock.tick(sum(map(len, batch_src)), sum(map(len, batch_tgt)))
            training.update(batch_src, batch_tgt)


if __name__ == "__main__":
    act(train, begin, translate)
