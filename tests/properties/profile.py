"""How many examples a property gets: a share of what the profile allows."""

from hypothesis import HealthCheck, settings


def share(percent: int, *, steps: int | None = None) -> settings:
    """``percent`` of the profile's examples; ``steps`` rules a run for a machine of rules.

    A machine of rules sets endpoints up and signs messages: Hypothesis' own pace is for pure data.
    """
    examples = max(1, settings.default.max_examples * percent // 100)
    chosen = settings(
        max_examples=examples, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
    )
    return chosen if steps is None else settings(chosen, stateful_step_count=steps)
