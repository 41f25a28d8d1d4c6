"""A wiki: pages in PostgreSQL, attached files in a shared directory, and an index of words on this server's own volume."""

import html
import json
import os
import queue
import re
import secrets
import signal
import sqlite3
import threading
import urllib.parse
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psycopg2

DATABASE = os.environ["DB_URL"]
FILES = "/var/lib/wiki/uploads"
INDEX = "/var/lib/wiki/index/words.db"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
LONGEST = {"pages": 64 << 10, "files": 8 << 20}

idle = queue.LifoQueue()


@contextmanager
def transaction():
    """A cursor whose work is committed at the end. What is acknowledged afterwards is on PostgreSQL's disk."""
    try:
        connection = idle.get_nowait()
    except queue.Empty:
        connection = psycopg2.connect(DATABASE, connect_timeout=5)
    try:
        with connection, connection.cursor() as cursor:
            yield cursor
    except BaseException:
        connection.close()
        raise
    idle.put(connection)


def prepare():
    with transaction() as cursor:
        # Servers start at the same time, and only one may make the table.
        cursor.execute("select pg_advisory_xact_lock(8000)")
        cursor.execute("create sequence if not exists revisions")
        cursor.execute(
            "create table if not exists pages (name text primary key, text text not null, revision bigint not null)"
        )


def save_page(name, text):
    with transaction() as cursor:
        # One at a time, so that revisions are seen in their order.
        cursor.execute("select pg_advisory_xact_lock(8000)")
        cursor.execute(
            "insert into pages values (%s, %s, nextval('revisions')) on conflict (name)"
            " do update set text = excluded.text, revision = excluded.revision returning revision",
            (name, text),
        )
        return cursor.fetchone()[0]


def save_file(name, content):
    """Other servers see all of it or nothing, and what is acknowledged is on the disk."""
    temporary = f"{FILES}/.{secrets.token_hex(8)}"
    with open(temporary, "xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, f"{FILES}/{name}")
    directory = os.open(FILES, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)


class Index:
    """Which words are on which pages. It is only made faster by being kept: what is missing comes from PostgreSQL."""

    def __init__(self):
        self.lock = threading.Lock()
        self.words = sqlite3.connect(INDEX, check_same_thread=False)
        with self.words:
            self.words.execute("create virtual table if not exists pages using fts5(name unindexed, text)")
            self.words.execute("create table if not exists seen (revision integer not null)")

    def find(self, query):
        phrases = " ".join('"' + word.replace('"', '""') + '"' for word in query.split())
        with self.lock, self.words:
            self.catch_up()
            found = self.words.execute("select name from pages where pages match ? order by rank limit 20", (phrases,))
            return [name for (name,) in found] if phrases else []

    def catch_up(self):
        (seen,) = self.words.execute("select coalesce(max(revision), 0) from seen").fetchone()
        with transaction() as cursor:
            cursor.execute("select name, text, revision from pages where revision > %s order by revision", (seen,))
            changed = cursor.fetchall()
        for name, text, revision in changed:
            self.words.execute("delete from pages where name = ?", (name,))
            self.words.execute("insert into pages values (?, ?)", (name, text))
            seen = revision
        if changed:
            self.words.execute("delete from seen")
            self.words.execute("insert into seen values (?)", (seen,))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        kind, _, name = url.path.lstrip("/").partition("/")
        if kind in ("pages", "files") and NAME.fullmatch(name):
            return self.carefully(self.page if kind == "pages" else self.file, name)
        if url.path == "/search":
            query = urllib.parse.parse_qs(url.query).get("q", [""])[0][:200]
            return self.carefully(self.search, query)
        if url.path in ("/", "/healthz"):
            return self.carefully(self.contents if url.path == "/" else self.healthz)
        return self.answer(404, "text/plain", "there is no such page\n")

    def do_PUT(self):
        kind, _, name = self.path.lstrip("/").partition("/")
        length = self.headers.get("Content-Length", "")
        if not NAME.fullmatch(name) or not length.isdigit() or int(length) > LONGEST.get(kind, -1):
            self.close_connection = True
            return self.answer(400, "text/plain", "put text to /pages/NAME, or a file to /files/NAME\n")
        content = self.rfile.read(int(length))
        if len(content) < int(length):
            self.close_connection = True
            return self.answer(400, "text/plain", "the end is missing\n")
        return self.carefully(self.save, kind, name, content)

    def save(self, kind, name, content):
        if kind == "files":
            save_file(name, content)
            return self.answer(201, "application/json", json.dumps({"file": name}) + "\n")
        revision = save_page(name, content.decode("utf-8", "replace").replace("\0", ""))
        self.answer(201, "application/json", json.dumps({"page": name, "revision": revision}) + "\n")

    def healthz(self):
        with transaction() as cursor:
            cursor.execute("select 1")
        os.stat(f"{FILES}/.")
        self.answer(200, "text/plain", "ok\n")

    def contents(self):
        with transaction() as cursor:
            cursor.execute("select name from pages order by revision desc limit 50")
            links = "".join(f'<li><a href="/pages/{name}">{name}</a></li>\n' for (name,) in cursor)
        self.answer(200, "text/html; charset=utf-8", f"<!doctype html>\n<title>Wiki</title>\n<ul>\n{links}</ul>\n")

    def page(self, name):
        with transaction() as cursor:
            cursor.execute("select text from pages where name = %s", (name,))
            row = cursor.fetchone()
        if row is None:
            return self.answer(404, "text/plain", "there is no such page\n")
        body = f"<!doctype html>\n<title>{name}</title>\n<h1>{name}</h1>\n<pre>{html.escape(row[0])}</pre>\n"
        return self.answer(200, "text/html; charset=utf-8", body)

    def file(self, name):
        try:
            with open(f"{FILES}/{name}", "rb") as file:
                content = file.read()
        except FileNotFoundError:
            return self.answer(404, "text/plain", "there is no such file\n")
        # Nobody's upload is shown as a page of ours.
        return self.answer(200, "application/octet-stream", content)

    def search(self, query):
        self.answer(200, "application/json", json.dumps(index.find(query)) + "\n")

    def carefully(self, work, *arguments):
        try:
            work(*arguments)
        except (psycopg2.Error, OSError, sqlite3.Error) as error:
            self.log_message("%s: %s", self.path, error)
            self.answer(503, "text/plain", "the wiki's data cannot be reached\n")

    def answer(self, status, kind, body):
        body = body if isinstance(body, bytes) else body.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    # Kiln has sent everything in flight to its end before it stops a server, so nothing is waited for here.
    daemon_threads = True
    request_queue_size = 128


prepare()
index = Index()
server = Server(("0.0.0.0", 8000), Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever()
