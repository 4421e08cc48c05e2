"""A figure as SVG that may stand inside a page: no script, no style attribute, no name twice, its text said aloud."""

import re
from xml.etree import ElementTree as ET

from batchlab.report.figures.drawing import Drawing

SVG = "http://www.w3.org/2000/svg"
XLINK = "{http://www.w3.org/1999/xlink}href"
ALLOWED = {f"{{{SVG}}}{name}" for name in ("svg", "g", "path", "use", "defs", "clipPath", "rect", "title", "desc")}
REFERENCE = re.compile(r"url\(#([^)]*)\)")


def inline_svg(drawing: Drawing) -> str:
    """The `<svg>` element alone, with `<title>` and `<desc>` for readers who cannot see it.

    What a style attribute says is said by attributes, so that the page needs no leave for inline styles; ids get the
    figure's name in front, as a page has many figures.
    """
    root = ET.fromstring(drawing.svg())  # made by matplotlib a moment ago: no foreign XML is parsed
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag not in ALLOWED:  # metadata, the stylesheet; comments never came through the parser
                parent.remove(child)
    for element in root.iter():
        _without_style(element)
        _renamed(element, drawing.name)
    for name in ("width", "height"):
        root.attrib.pop(name, None)  # the page gives it the room there is
    for name, text in (("desc", drawing.says), ("title", drawing.title)):
        said = ET.Element(f"{{{SVG}}}{name}", {"id": f"{drawing.name}-{name}"})
        said.text = text
        root.insert(0, said)
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
