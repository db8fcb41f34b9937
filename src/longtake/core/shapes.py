"""The legend of shapes used in every signature.

| letter | meaning |
|---|---|
| B | batch |
| T | frames |
| K | clips |
| F | frames per clip |
| P | patches per frame |
| N | tokens in |
| M | tokens out |
| Q | question (query) tokens |
| L | sequence length |
| D | width |
| H, W | pixels |

Signatures write them as jaxtyping strings, for example ``Float[Tensor, "K N D"]``.
"""
