from training.weights.alphas import Alphas


def test_the_last_pattern_that_fits_a_layer_counts():
    alphas = Alphas(
        {
            "unet.lora_alpha": 8,
            "unet.alpha_pattern": {"to_q": 1, "^mid.to_k": 2, "attn1.to_q": 3, "q": 4, "up.attn2.to_q": 5},
        }
    )

    assert alphas.of("unet", "down.attn1.to_q") == 3
    assert alphas.of("unet", "up.attn2.to_q") == 5
    assert alphas.of("unet", "mid.to_k") == 2
    assert alphas.of("unet", "down.mid.to_k") == 8
    assert alphas.of("unet", "up.attn2.to_v") == 8
    assert alphas.of("text_encoder", "to_q") is None


def test_as_many_patterns_as_layers_are_looked_at_once_each():
    class Counted(dict):
        walks = 0

        def items(self):
            Counted.walks += 1
            return super().items()

    alphas = Alphas({"unet.alpha_pattern": Counted({f"layer{n}": n for n in range(5000)})})

    assert [alphas.of("unet", f"block.layer{n}") for n in range(5000)] == list(range(5000))
    assert Counted.walks == 1
