"""LaTeX tables (booktabs) of the tables that `content` made. Must not know: where they are put."""

from __future__ import annotations

from harness.reports.text.model import Table

ESCAPES = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "`": "",  # marks code in captions
        "±": r"$\pm$",
        "×": r"$\times$",
        "→": r"$\rightarrow$",
        "α": r"$\alpha$",
        "γ": r"$\gamma$",
        "λ": r"$\lambda$",
        "τ": r"$\tau$",
        "Δ": r"$\Delta$",
        "φ": r"$\varphi$",
        "–": "--",
        "…": r"\dots{}",
    }
)
"""pandas escapes cells, but neither captions nor what pdfLaTeX has no text character for."""


def to_latex(table: Table) -> str:
    """A floating table with a caption and the label `tab:<stem>`, for the package booktabs."""
    words = table.words.rename(index=_escaped, columns=_escaped).map(_escaped)
    words = words.reset_index(names=_escaped(table.corner))
    return str(
        words.style.hide(axis="index").to_latex(
            column_format="l" + "r" * len(table.words.columns),
            hrules=True,
            position="t",
            position_float="centering",
            caption=f"{_escaped(table.caption)}.",
            label=f"tab:{table.stem}",
        )
    )


def _escaped(text: object) -> str:
    return str(text).translate(ESCAPES)
