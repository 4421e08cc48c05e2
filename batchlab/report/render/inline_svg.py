"""A figure as SVG inside a page: no script, no style attribute, unique ids, and text for screen readers."""

import re
from xml.etree import ElementTree as ET

from batchlab.report.figures.drawing import Drawing

SVG = "http://www.w3.org/2000/svg"
XLINK = "{http://www.w3.org/1999/xlink}href"
ALLOWED = {f"{{{SVG}}}{name}" for name in ("svg", "g", "path", "use", "defs", "clipPath", "rect", "title", "desc")}
REFERENCE = re.compile(r"url\(#([^)]*)\)")


def inline_svg(drawing: Drawing) -> str:
    """The `<svg>` element alone, with `<title>` and `<desc>` for readers who cannot see it.

    Style attributes become plain attributes, so that the page need not allow inline styles; ids get the figure's name
    as a prefix, as a page has many figures.
    """
    root = ET.fromstring(drawing.svg())  # made by matplotlib a moment ago: no foreign XML is parsed
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag not in ALLOWED:  # metadata, the stylesheet; the parser drops comments
                parent.remove(child)
    for element in root.iter():
        _without_style(element)
        _renamed(element, drawing.name)
    for name in ("width", "height"):
        root.attrib.pop(name, None)  # the page sets the size
    for name, text in (("desc", drawing.caption), ("title", drawing.title)):
        described = ET.Element(f"{{{SVG}}}{name}", {"id": f"{drawing.name}-{name}"})
        described.text = text
        root.insert(0, described)
    root.set("role", "img")
    root.set("aria-labelledby", f"{drawing.name}-title {drawing.name}-desc")
    ET.register_namespace("", SVG)
    return ET.tostring(root, encoding="unicode")


def _without_style(element: ET.Element) -> None:
    for part in element.attrib.pop("style", "").split(";"):
        name, _, value = part.partition(":")
        if value:
            element.set(name.strip(), value.strip())
    element.attrib.pop("type", None)


def _renamed(element: ET.Element, prefix: str) -> None:
    for name, value in list(element.attrib.items()):
        if name == "id":
            element.set(name, f"{prefix}-{value}")
        elif name == XLINK:
            del element.attrib[name]
            element.set("href", f"#{prefix}-{value.removeprefix('#')}")
        else:
            element.set(name, REFERENCE.sub(rf"url(#{prefix}-\1)", value))
