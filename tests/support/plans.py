"""Plans that differ from another in a few fields."""

from gateway.core.plan import Plan


def changed(plan: Plan, **fields: object) -> Plan:
    """A copy of `plan` with `fields` set."""
    made = plan.with_grant(plan.grant, plan.body)
    for name, value in fields.items():
        setattr(made, name, value)
    return made
