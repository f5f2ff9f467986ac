"""The style sheet of a report: system fonts, light and dark as the reader's system asks, from a phone's width up."""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fbfbf9; --card: #ffffff; --ink: #22222a; --soft: #5a5a66; --line: #dcdce2;
  --accent: #005a94; --warn: #a33f00; --good: #00664a; --mark: #f1f1f4;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #15151a; --card: #1d1d24; --ink: #e9e9ee; --soft: #a9a9b6; --line: #363640;
    --accent: #7cc0f0; --warn: #ffa366; --good: #62d0a8; --mark: #26262f;
  }
}
* { box-sizing: border-box; }
html { font-size: 100%; -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--paper); color: var(--ink); line-height: 1.55;
  font-family: "Charter", "Bitstream Charter", "Iowan Old Style", "Source Serif 4", Georgia, serif;
}
main, footer { max-width: 52rem; margin: 0 auto; padding: 0 1.1rem; }
h1, h2, h3, table, .facts, nav, footer, figcaption, .verdict strong {
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", sans-serif;
}
header { padding: 2.6rem 0 0.6rem; }
h1 { font-size: clamp(1.5rem, 1.1rem + 2vw, 2.2rem); line-height: 1.15; margin: 0 0 0.5rem; overflow-wrap: anywhere; }
h2 {
  font-size: 1.25rem; line-height: 1.25; margin: 3rem 0 0.8rem; padding-top: 0.9rem;
  border-top: 1px solid var(--line);
}
h3 { font-size: 1.02rem; margin: 1.8rem 0 0.4rem; }
p { margin: 0.7rem 0; max-width: 42rem; overflow-wrap: anywhere; }
.lead { color: var(--soft); font-size: 1.05rem; }
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: 0.2rem 1.1rem; margin: 1rem 0 0; padding: 0; }
nav a { display: inline-block; padding: 0.3rem 0; font-size: 0.92rem; }
a { color: var(--accent); text-underline-offset: 0.18em; }
a:focus-visible, .scroll:focus-visible, summary:focus-visible { outline: 2px solid var(--accent); outline-offset: 3px; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(10.5rem, 1fr)); gap: 0.7rem; margin: 1.5rem 0; }
.facts > div {
  background: var(--card); border: 1px solid var(--line); border-radius: 0.5rem; padding: 0.75rem 0.9rem;
}
.facts dt { color: var(--soft); font-size: 0.83rem; }
.facts dd { margin: 0.15rem 0 0; font-size: 1.22rem; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.facts dd small { display: block; color: var(--soft); font-size: 0.8rem; }
.verdict { border-left: 4px solid var(--good); background: var(--card); padding: 0.6rem 1rem; margin: 1.2rem 0; }
.verdict.warn { border-left-color: var(--warn); }
.verdict p { margin: 0.3rem 0; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; width: 100%; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); font-size: 0.87rem; padding-bottom: 0.5rem; }
th, td { text-align: left; padding: 0.42rem 0.8rem 0.42rem 0; vertical-align: top; }
thead th { color: var(--soft); font-weight: 600; border-bottom: 2px solid var(--line); white-space: nowrap; }
tbody tr { border-bottom: 1px solid var(--line); }
tbody th { font-weight: 500; }
tbody th small, td small { display: block; color: var(--soft); font-weight: 400; }
.pairs td { overflow-wrap: anywhere; }
.pairs th { width: 34%; }
.number { text-align: right; white-space: nowrap; }
.flag, .fine, .apart { white-space: nowrap; }
.flag { color: var(--warn); font-weight: 600; }
.fine { color: var(--good); }
figure { margin: 1.3rem 0; }
figure img { display: block; width: 100%; max-width: 36rem; height: auto; }
figure.picture img { background: #ffffff; border-radius: 0.4rem; padding: 0.3rem; }
figcaption { color: var(--soft); font-size: 0.87rem; max-width: 36rem; margin-top: 0.5rem; }
code, pre { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: 0.86em; }
pre { background: var(--mark); border-radius: 0.4rem; padding: 0.8rem 1rem; overflow-x: auto; }
details { margin: 0.8rem 0; }
summary { cursor: pointer; color: var(--accent); padding: 0.3rem 0; }
footer { color: var(--soft); font-size: 0.83rem; padding-top: 2.5rem; padding-bottom: 3rem; }
@media print { body { background: none; } h2, figure, table { break-inside: avoid; } nav { display: none; } }
"""
