"""The learning rate that suits each recipe, as tuning or a study has found it."""

LEARNING_RATES = {
    "batchnorm": 0.1,
    "groupnorm": 0.2,
    "none": 0.05,
    "zc-swish": 0.05,
    "salunet": 0.05,
}
"""What suits each recipe best among 0.02, 0.05, 0.1 and 0.2: the highest mean accuracy of the last
three rounds on validation images of CIFAR-10, in the study `learning-rates` at its small scale
(docs/studies/heterogeneity.md). At the full scale, and on other data, they are transferred."""
DEMO_RATES = {
    "batchnorm": 0.4,
    "groupnorm": 0.4,
    "none": 0.1,
    "swish": 0.2,
    "zc-swish": 0.1,
    "salunet": 0.2,
}
"""What won for each recipe of the demo, by `fednf tune` over 0.0125 to 0.4 on its skewed clients:
the highest mean accuracy on validation images, over two seeds (docs/measurements/results.md)."""
