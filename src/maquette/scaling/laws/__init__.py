"""Laws of the loss as pure functions of arrays: what predicts, and the laws of the papers beside it.

The loss of a larger run, with an interval, in five files:

| | read |
|---|---|
| `fit_predictor`: weights that follow the run to be predicted | `predictor.py` |
| the best size of a budget, shrunk towards published exponents | `size_line.py` |
| the surface below the unigram entropy, fitted with priors | `plateau.py` |
| the interval, and an error in compute | `forecast.py` |
| how wrong a law was on the same runs (Tashman 2000) | `rolling_origin.py` |

Chinchilla (Hoffmann et al. 2022) in the order of its approaches; `maquette fit` fits surfaces by least squares (the
paper's Huber loss is `fit_surface(..., method=...)`):

| | read |
|---|---|
| the law L(N, D) (equation 2), the best N and D of a budget (equation 4), published values | `surface.py` |
| approach 1, envelope; approach 2, IsoFLOP curves | `isoflop.py` (its bias: `fit.py`), `minimum.py`, `power_law.py` |
| approach 3, the surface fitted to all runs | `fit.py`, on `forms.py`, `gauss_newton.py`, `runs.py` |

After it:

| question | source | file |
|---|---|---|
| which form predicts larger runs? | Tashman 2000 | `extrapolation.py`, `fitted_form.py`; your own: `custom_form.py` |
| does the exponent of D depend on N? | Li et al. 2025 | `farseer.py` |
| does a change move the law, tilt it, and where do two cross? | Fieller 1954 | `difference.py` |
| what happens where models begin to copy? | Olsson et al. 2022 | `regimes.py`, `token_kinds.py` |
| why did Kaplan et al. 2020 find another exponent? | Pearce and Song 2024 | `counting.py` |
| what are repeated tokens worth? | Muennighoff et al. 2023, equation 5 | `repetition.py` |
| which learning rate, which batch, at which size? | Porian et al. 2024, section 4 | `setting_law.py` |
| which mixture of domains? | Ye et al. 2024, equation 1 | `mixing_law.py` |
| which accuracy at which loss? | Gadre et al. 2024 | `loss_to_accuracy.py` |
"""
