"""Topic names and filters of few levels, so that they often meet."""

from __future__ import annotations

from hypothesis import strategies as st

from broker.codec.errors import TopicFilterInvalid
from broker.topics.names import validate_topic_filter

_NAME_LEVELS = st.sampled_from(("a", "b", "", "$x"))
_FILTER_LEVELS = st.sampled_from(("a", "b", "", "$x", "+", "#"))


def is_filter(text: str) -> bool:
    """Whether it may be subscribed to."""
    try:
        validate_topic_filter(text)
    except TopicFilterInvalid:
        return False
    return True


TOPIC_NAMES = st.lists(_NAME_LEVELS, min_size=1, max_size=4).map("/".join).filter(bool)
TOPIC_FILTERS = st.lists(_FILTER_LEVELS, min_size=1, max_size=4).map("/".join).filter(is_filter)
