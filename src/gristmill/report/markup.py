"""Text to HTML, escaped unless it is already markup: nothing a user wrote can become a tag."""

import html

__all__ = ["Markup", "join", "tag"]

VOID = frozenset({"meta", "br", "hr", "path", "line", "rect", "circle", "polyline"})


class Markup(str):
    """A string that is HTML already."""

    __slots__ = ()


def tag(name: str, /, *children: str | None, **attributes: str | float | int | None) -> Markup:
    """Returns an element. Children are escaped unless they are Markup; None is left out, of attributes too.

    A trailing underscore is dropped and the others become hyphens: `class_`, `stroke_width`.

        >>> tag("p", "1 < 2 ", tag("b", "yes"), class_="fact")
        '<p class="fact">1 &lt; 2 <b>yes</b></p>'
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(_number(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in VOID:
        return Markup(
            f"<{name}{written}>" if not written or name in {"meta", "br", "hr"} else f"<{name}{written}/>"
        )
    return Markup(f"<{name}{written}>{join(*children)}</{name}>")


def join(*children: str | None) -> Markup:
    """Returns the children one after the other, escaped unless they are Markup."""
    return Markup(
        "".join(
            c if isinstance(c, Markup) else html.escape(c, quote=False) for c in children if c is not None
        )
    )


def _number(value: str | float | int) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
