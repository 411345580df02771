"""Bars as SVG, written by hand: no library is needed, and a text diff shows what changed."""

from html import escape

_WIDTH, _LEFT, _BAR, _HEAD, _GAP = 900, 270, 16, 34, 14
_STYLE = "text { font: 12px sans-serif; fill: #222 } .ours { fill: #1b7f5c } .others { fill: #9aa5b1 } .title { font-weight: bold }"


def svg(groups):
    """One group of bars a table, each to its own scale: its title, and name and figure of each bar; ours have a colour of their own."""
    parts, top = [], _GAP
    for title, bars in groups:
        parts.append(f'<text class="title" x="8" y="{top + 14}">{escape(title)}</text>')
        top += _HEAD - 10
        for name, figure in bars.items():
            parts.append(_bar(name, figure, top, (_WIDTH - _LEFT - 80) / max(*bars.values(), 1e-9)))
            top += _BAR + 3
        top += _GAP
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{top}" viewBox="0 0 {_WIDTH} {top}">'
    return "\n".join([head, f"<style>{_STYLE}</style>", '<rect width="100%" height="100%" fill="#fff"/>', *parts, "</svg>\n"])


def _bar(name, figure, top, scale):
    kind = "ours" if name.startswith("dicomrx") else "others"
    width = max(figure * scale, 1)
    return (
        f'<text x="{_LEFT - 8}" y="{top + 12}" text-anchor="end">{escape(name)}</text>'
        f'<rect class="{kind}" x="{_LEFT}" y="{top}" width="{width:.1f}" height="{_BAR}"/>'
        f'<text x="{_LEFT + width + 6:.1f}" y="{top + 12}">{figure:.4g}</text>'
    )
