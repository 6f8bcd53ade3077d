"""A form of law: data wear out the faster the larger the model is.

maquette fit form=stranger.law.Coupled        forced
maquette fit 'forms=[stranger.law.Coupled]'   compared with ours by what it predicts out of sample
"""


class Coupled:
    """After Farseer (Li et al. 2025), with one exponent that depends on N."""

    formula = "L = E + A / N^alpha + B / D^(beta N^delta)"
    parameters = {
        "E": (0, 5),
        "A": (1e-2, 1e8),
        "alpha": (0.01, 3),
        "B": (1e-2, 1e8),
        "beta": (0.01, 3),
        "delta": (-0.3, 0.3),
    }

    def loss(self, N, D, *, E, A, alpha, B, beta, delta):
        return E + A / N**alpha + B / D ** (beta * N**delta)
