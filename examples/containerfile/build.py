"""Makes a page of HTML from each text in a directory; what is known already comes from the cache."""

import argparse
import hashlib
import html
import pathlib

parser = argparse.ArgumentParser()
parser.add_argument("--title", required=True)
parser.add_argument("--cache", type=pathlib.Path, required=True)
parser.add_argument("pages", type=pathlib.Path)
parser.add_argument("site", type=pathlib.Path)
arguments = parser.parse_args()

arguments.site.mkdir(parents=True)
links = []
for page in sorted(arguments.pages.glob("*.txt")):
    text = page.read_text()
    key = hashlib.sha256(f"{arguments.title}\0{text}".encode()).hexdigest()
    known = arguments.cache / key
    if not known.exists():
        paragraphs = "".join(f"<p>{html.escape(part)}</p>\n" for part in text.strip().split("\n\n"))
        known.write_text(f"<!doctype html>\n<title>{html.escape(arguments.title)}</title>\n{paragraphs}")
    target = arguments.site / f"{page.stem}.html"
    target.write_text(known.read_text())
    links.append(f'<li><a href="{target.name}">{html.escape(page.stem)}</a></li>')
index = "\n".join(links)
title = html.escape(arguments.title)
(arguments.site / "index.html").write_text(f"<!doctype html>\n<title>{title}</title>\n<h1>{title}</h1>\n<ul>\n{index}\n</ul>\n")
