"""Whether users want the same things again, and for how long that is remembered."""

from pydantic import Field

from nightshelf.yamlfile import Name, Strict


class Rebuy(Strict):
    """An act that users repeat on the same item, such as the purchase of milk.

    event: the outcome that is meant. days: how many days of arrival up to a night it is remembered; the first night cleans as
    many days of logs, if there are any.
    """

    event: Name
    days: int = Field(365, ge=30, le=1500)
