"""Settings of the stages that read runs: laws, predictions and their verdicts, plans."""

from dataclasses import dataclass

from maquette.artifacts.errors import ConfigError
from maquette.artifacts.settings import setting
from maquette.cli.command_line.config import PrintedStage, RecordedStage, SeededStage


@dataclass
class RunsStage(RecordedStage, PrintedStage):
    filter: str | None = setting(None, "MLflow filter, such as \"params.size = '300k'\"")
    columns: list[str] = setting(list, "metrics and parameters to show; by default the main ones")
    limit: int = setting(20, "newest runs to show", minimum=1)
    diff: list[str] = setting(list, "two runs side by side instead (also: maquette runs diff A B)")

    def validate(self) -> None:
        """Raises `ConfigError` where it names something else than two runs."""
        names = self.diff[1:] if self.diff[:1] == ["diff"] else self.diff
        if self.diff and len(names) != 2:
            raise ConfigError(
                f"maquette runs diff compares two runs, got {len(names)}{': ' if names else ''}{' '.join(names)}.",
                "Write: maquette runs diff <run> <run>.",
            )
        self.diff = names


@dataclass
class FitStage(RecordedStage, PrintedStage, SeededStage):
    runs: str | None = setting(
        None,
        "a sweep (name or MLflow run id; several with + between), an MLflow filter, or a CSV file with N, D and loss; "
        "by default the newest sweep",
    )
    name: str | None = setting(None, "name of the artifact (and of the recipe); by default after the runs")
    form: str | None = setting(
        None,
        "force a form instead of choosing by extrapolation; told what it costs",
        choices=("minima", "kaplan", "additive", "general"),
        own=True,
    )
    forms: list[str] = setting(list, "forms of your own that take part, each as package.module.Name")
    convention: str = setting(
        "exact",
        "exact: N counts core and head, C is exact; kaplan: N counts the core, C = 6 N D",
        choices=("exact", "kaplan"),
    )
    laws: str | None = setting(
        None,
        "another law than that of the loss: of a setting (writes a recipe), of epochs, of mixtures, or L(N) and L(D) "
        "each alone",
        choices=("learning_rate", "batch", "repetition", "mixture", "size_and_tokens"),
    )
    max_epochs: float = setting(4.0, "laws=mixture: no domain is read more often by the best mixture", minimum=0.1)
    targets: dict[str, float] = setting(
        dict, "laws=mixture: what each domain's held-out loss counts, such as {code: 2, docs: 1}; by default the same"
    )
    verify: bool = setting(False, "laws=mixture: train the best mixture as its runs were, and tell whether it holds")
    compare: str | None = setting(
        None, "compare families by this column, such as model.kind+model.activation: offset or slope?"
    )
    effect: str | None = setting(
        None, "what the values of this column do at equal compute, such as tokenizer.vocab_size: means over seeds"
    )
    measures: list[str] = setting(
        list, "effect: columns to measure by; by default bits per byte, and scores on tasks where runs were evaluated"
    )
    units: dict[str, str] = setting(
        dict,
        "of a CSV file that counts otherwise: N and D in thousands to trillions, C in petaflops_days, exaflops or "
        "zettaflops, loss as perplexity or in bits, decimals with a comma; such as {N: billions, loss: perplexity}",
    )
    without: list[str] = setting(list, "names of runs to leave out")
    suggest: int = setting(0, "print so many next runs that narrow a prediction most per FLOP", minimum=0)
    size: str | None = setting(None, "the prediction that suggest is to narrow: its size", quantity=True)
    tokens: str | None = setting(None, "its tokens", quantity=True)
    compute: str | None = setting(
        None, "or its compute; by default ten times the largest budget, at the best size", quantity=True
    )
    affordable: str | None = setting(
        None, "FLOPs of a suggested run at most; by default the largest budget", quantity=True
    )
    bootstrap: int = setting(200, "resamples for intervals", minimum=100)
    level: float = setting(0.9, "coverage of the intervals", minimum=0.5, maximum=0.99)

    def validate(self) -> None:
        """Raises `ConfigError` where several questions are asked at once."""
        asked = [f"{name}={getattr(self, name)}" for name in ("laws", "compare", "effect") if getattr(self, name)]
        if len(asked) > 1:
            raise ConfigError(f"{' and '.join(asked)} are questions of their own.", "Ask one at a time.")


@dataclass
class PredictStage(RecordedStage, PrintedStage):
    fit: str | None = setting(None, "the fit to predict by (name or folder); by default the newest")
    size: str | None = setting(None, "parameters of the run; by default the best for compute", quantity=True)
    tokens: str | None = setting(None, "its token budget", quantity=True)
    compute: str | None = setting(None, "its training FLOPs, such as 1e14, instead of tokens", quantity=True)
    form: str | None = setting(None, "predict by another form of the fit than the one that it leads with")
    seed: int | None = setting(None, "seed of the run; by default that of the fit's runs", minimum=0)
    register: str | None = setting(None, "a file to be committed, which gets the prediction's digest")

    def require_run(self) -> None:
        """Raises `ConfigError` where it is not said, or said twice, what is to be predicted."""
        if self.compute is None and (self.size is None or self.tokens is None):
            raise ConfigError(
                "What is to be predicted?",
                "Give compute=1e14, or size=3m and tokens=60m (or size=3m and compute=1e14).",
            )
        if self.compute is not None and self.tokens is not None:
            raise ConfigError(
                "tokens and compute are both given.", "Each sets the token budget: leave one of them out."
            )


@dataclass
class VerifyStage(RecordedStage, PrintedStage):
    prediction: str | None = setting(None, "the prediction to judge (its id); by default all of them")


@dataclass
class BacktestStage(RecordedStage, PrintedStage):
    runs: str | None = setting(None, "a CSV file with N, D and loss, a sweep, or an MLflow filter")
    by: str | None = setting(None, "columns whose values make tables of their own, such as dataset or dataset+model")
    forms: list[str] = setting(list, "forms of law of your own that take part, each as package.module.Name")
    convention: str = setting("exact", "what N and C count, as for fit", choices=("exact", "kaplan"))
    units: dict[str, str] = setting(dict, "of a CSV file that counts otherwise, as for fit")
    name: str | None = setting(None, "of the folder in <outputs>/backtests; by default after the runs")


@dataclass
class PlanStage(PrintedStage):
    preset: str | None = setting(None, "a known model's assumptions to start from", choices=("llama3_405b",))
    surface: str = setting(
        "besiroglu_2024",
        "the loss surface to plan on: besiroglu_2024, hoffmann_2022, muennighoff_2023, kaplan_2020, or your own fit "
        "(its name, or latest)",
    )
    gpus: float | None = setting(None, "accelerators (10,000)", minimum=1)
    gpu: str | None = setting(None, "their kind: v100, a100, h100, h200, b200, mi300x (h100)")
    days: float | None = setting(None, "days of training (30)", minimum=0)
    params: str | None = setting(None, "cost this model instead of the best one: its parameters", quantity=True)
    utilization: float | None = setting(None, "MFU: share of the peak that is reached (0.4)", minimum=0, maximum=1)
    tokens: str | None = setting(None, "and its training tokens", quantity=True)
    tokens_per_parameter: float | None = setting(
        None,
        "cost the model with so many tokens a parameter at this compute, and say what served volume asks for it",
        minimum=0,
    )
    tokens_available: str | None = setting(None, "distinct tokens there are; more is repetition", quantity=True)
    tokens_served: str | None = setting(None, "tokens the model will generate and read in its life", quantity=True)
    token_price: float | None = setting(None, "dollars for a million more distinct tokens (1)", minimum=0)
    price: float | None = setting(None, "dollars for an accelerator-hour; by default the accelerator's own", minimum=0)
    people: float | None = setting(None, "people to pay (none; 50 with the preset llama3_405b)", minimum=0)
    salary: float | None = setting(None, "dollars for a person and year (500,000)", minimum=0)
    staff_years: float | None = setting(None, "years they work on it (1)", minimum=0)
    overhead: float | None = setting(None, "PUE: the data centre's energy over the accelerators' (1.1)", minimum=1)
    kilograms_per_kwh: float | None = setting(None, "kg of CO2e for a kWh (0.4)", minimum=0)
    num_experts: int | None = setting(
        None, "a mixture of so many experts: the parameters of the plan are those that a token uses", minimum=1
    )
    num_experts_per_tok: int = setting(2, "experts that a token goes through", minimum=1)
    sequence_length: int | None = setting(
        None, "predict the memory of a step with a sequence of so many tokens, and whether it fits (seconds)", minimum=1
    )
    pipeline: str | None = setting(
        None, "compare: thirty one-day models against three days of small ones and one of 27", choices=("compare",)
    )
