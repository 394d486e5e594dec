"""What runs differ by: how much of the variance comes from which draw."""

import warnings
from collections.abc import Mapping, Sequence


def variance_shares(
    rows: Sequence[Mapping[str, object]],
    outcome: str,
    fixed: Sequence[str],
    random: Sequence[str],
) -> dict[str, float]:
    """Return the share of each random effect in the variance that fixed effects leave.

    See `variance_parts`; shares sum to 1.
    """
    parts = variance_parts(rows, outcome, fixed, random)
    total = sum(parts.values())
    return {name: part / total for name, part in parts.items()}


def variance_parts(
    rows: Sequence[Mapping[str, object]],
    outcome: str,
    fixed: Sequence[str],
    random: Sequence[str],
) -> dict[str, float]:
    """Return the variance of each random effect, in squared units of the outcome.

    The model is Y = Σ fixed (with all their interactions) + Σ random + ε, with independent normal
    random effects of one variance each, fitted by restricted maximum likelihood.

    Source: `statsmodels`, MixedLM with variance components in one group.

    Args:
        rows: one a run.
        outcome: the key of Y.
        fixed: keys of what was compared on purpose, such as the recipe.
        random: keys of what was drawn, such as the deal; ``a:b`` is the interaction of two keys.

    Returns:
        Variance by random effect, and the rest as ``rest``. Their sum is the variance of an outcome
        of which all is drawn anew.

    Raises:
        ModuleNotFoundError: the extra `stats` is not installed.
    """
    from pandas import DataFrame  # which takes long to load, as does the next
    from statsmodels.regression.mixed_linear_model import MixedLM
    from statsmodels.tools.sm_exceptions import ConvergenceWarning

    keys = dict.fromkeys(key for name in random for key in name.split(":"))
    table = DataFrame(
        {
            "outcome": [row[outcome] for row in rows],
            # One factor with the combinations that there are: of two that go together, such as a
            # recipe and its learning rate, products would be a singular matrix.
            "fixed": [" | ".join(str(row[key]) for key in fixed) for row in rows],
            **{f"k{i}": [str(row[key]) for row in rows] for i, key in enumerate(keys)},
        }
    )
    column = {key: f"C(k{i})" for i, key in enumerate(keys)}
    components = {
        name: "0 + " + ":".join(column[key] for key in name.split(":")) for name in random
    }
    formula = "outcome ~ " + ("C(fixed)" if fixed else "1")
    model = MixedLM.from_formula(
        formula, table, groups=[0] * len(table), re_formula="0", vc_formula=components
    )
    with warnings.catch_warnings():  # a share of 0 lies at the edge of what is possible
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        fitted = model.fit(reml=True)
    found = dict(zip(model.exog_vc.names, fitted.vcomp, strict=True))
    return {name: float(found[name]) for name in random} | {"rest": float(fitted.scale)}
