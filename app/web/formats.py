"""Format numbers, times, ids and jobs for pages."""

import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from markupsafe import Markup
from pydantic import TypeAdapter

from app.charts.formatting import capitalize_first, format_number
from app.jobs.schemas import JobListItem
from app.queue.tables import Job
from lora_core.data.data_report import format_count
from lora_core.specs.encoded_labels import decode_targets
from lora_core.specs.method import AutoSpec, LinearSpec, MethodSpec, describe_method
from lora_core.tasks.metric_info import METRICS

MISSING_VALUE = "\N{EN DASH}"
LINEAR_METHOD = LinearSpec().type
_METHOD: TypeAdapter[MethodSpec] = TypeAdapter(MethodSpec)


def percent(fraction: float | None, digits: int = 1) -> str:
    """Format 0.8123 as `81.2%`."""
    return MISSING_VALUE if fraction is None else f"{fraction * 100:.{digits}f}%"


def intcomma(number: int | None) -> str:
    """Format 1234567 as `1,234,567`."""
    return MISSING_VALUE if number is None else f"{number:,}"


def number(value: float | None) -> str:
    """Format with about four significant digits: `0.0003`, `16`, `0.4312`, `12,345`."""
    return MISSING_VALUE if value is None else format_number(value)


def exact_number(value: float) -> str:
    """Format with all digits, for fields of forms: `0.0123456`, `30`."""
    return repr(value).removesuffix(".0")


def metric_value(value: float | None, name: str) -> str:
    """Format the metric of a report: a share of 1 as `81.2%`, others as a number."""
    return percent(value) if METRICS[name].is_share else number(value)


def metric_label(name: str) -> str:
    """Return the name of a metric as people write it: `macro F1`."""
    return METRICS[name].label


def capitalized_metric_label(name: str) -> str:
    """Return the name of a metric as the title of a row or a chart: `Macro F1`."""
    return capitalize_first(METRICS[name].label)


def display_label_parts(label: str, task_type: str) -> list[str]:
    """Return the label of a row for people: its name, the names of its labels, or its number."""
    match task_type:
        case "multi_label":
            return [str(name) for name in json.loads(label)]
        case "regression":
            return [number(float(label))]
        case "several_targets":
            return [
                f"{target}: {', '.join(value) if isinstance(value, tuple) else value}"
                for target, value in decode_targets(label).items()
            ]
        case _:
            return [label]


def size(octets: int | None) -> str:
    """Format 2500000 bytes as `2.5 MB`."""
    if octets is None:
        return MISSING_VALUE
    value = float(octets)
    for unit in ("bytes", "kB", "MB", "GB"):
        if round(value, 1) < 1000 or unit == "GB":
            break
        value /= 1000
    return f"{octets} bytes" if unit == "bytes" else f"{value:.1f} {unit}"


def duration(seconds: float | None) -> str:
    """Format 75.2 seconds as `1 min 15 s`."""
    if seconds is None:
        return MISSING_VALUE
    if 0 < seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def approximate_duration(seconds: float) -> str:
    """Format an estimate: `about 12 minutes`."""
    units = ((86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))
    length, name = next((unit for unit in units if seconds >= 1.5 * unit[0]), units[-1])
    number = max(1, round(seconds / length))
    return f"about {number:,} {name}" + ("s" if number > 1 else "")


def ago(timestamp: float | None) -> Markup | str:
    """Format as elapsed time, `5 min ago`, with the UTC time as a tooltip."""
    if timestamp is None:
        return MISSING_VALUE
    elapsed = max(0.0, time.time() - timestamp)
    text = "just now"
    for seconds, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if elapsed >= seconds:
            text = f"{int(elapsed // seconds)} {unit} ago"
            break
    return _time_element(timestamp, text)


def date_time(timestamp: float | None) -> Markup | str:
    """Format as UTC: `27 Nov 2026, 07:46 UTC`."""
    if timestamp is None:
        return MISSING_VALUE
    utc = datetime.fromtimestamp(timestamp, UTC)
    return _time_element(timestamp, f"{utc:%-d %b %Y, %H:%M} UTC")


def time_of_day(timestamp: float) -> Markup:
    """Format as UTC: `07:46:03`."""
    return _time_element(timestamp, f"{datetime.fromtimestamp(timestamp, UTC):%H:%M:%S}")


def _time_element(timestamp: float, text: str) -> Markup:
    utc = datetime.fromtimestamp(timestamp, UTC)
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        utc.isoformat(timespec="seconds"), f"{utc:%-d %b %Y, %H:%M:%S} UTC", text
    )


def id_suffix(identifier: UUID | str) -> str:
    """Return the end of an id, which differs between ids of the same minute."""
    return str(identifier)[-8:]


def job_name(job: JobListItem | Job) -> str:
    """Return the job's name, or a name made from the end of its id."""
    return job.name or f"job {id_suffix(job.id)}"


def data_source_name(spec: Mapping[str, Any]) -> str:
    """Return `rotten-tomatoes`, or `reviews:2, more:1` for data given split by split."""
    source = spec["data"]["source"]
    return source if isinstance(source, str) else ", ".join(dict.fromkeys(source.values()))


def method_name(spec: Mapping[str, Any]) -> str:
    """Return the method with its variant, r and alpha, as papers write it."""
    method: MethodSpec = _METHOD.validate_python(spec["method"])
    return method.type if isinstance(method, AutoSpec) else describe_method(method)


# for Jinja2
FILTERS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        *(
            percent,
            intcomma,
            number,
            exact_number,
            metric_value,
            metric_label,
            capitalized_metric_label,
            capitalize_first,
        ),
        *(display_label_parts, size, format_count),
        *(job_name, data_source_name, method_name),
        *(duration, approximate_duration, ago, date_time, time_of_day, id_suffix),
    )
}
