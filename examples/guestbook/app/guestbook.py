"""A guestbook: entries are posted, kept in PostgreSQL, and shown. Nothing is kept in the server."""

import html
import json
import os
import queue
import signal
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psycopg2

DATABASE = os.environ["DB_URL"]
TITLE = html.escape(os.environ.get("TITLE", "Guestbook"))
LONGEST = 1000
SHOWN = 20

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
        cursor.execute(
            "create table if not exists entries (id bigserial primary key, text text not null,"
            " at timestamptz not null default now())"
        )


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/healthz":
            return self.carefully(self.healthz)
        if self.path == "/":
            return self.carefully(self.page)
        return self.answer(404, "text/plain", "there is no such page\n")

    def do_POST(self):
        length = self.headers.get("Content-Length", "")
        if self.path != "/entries" or not length.isdigit() or int(length) > LONGEST:
            self.close_connection = True
            return self.answer(400, "text/plain", f"post an entry of at most {LONGEST} bytes to /entries\n")
        self.text = self.rfile.read(int(length)).decode("utf-8", "replace").replace("\0", "")
        return self.carefully(self.sign)

    def healthz(self):
        with transaction() as cursor:
            cursor.execute("select 1")
        self.answer(200, "text/plain", "ok\n")

    def page(self):
        with transaction() as cursor:
            cursor.execute("select text from entries order by id desc limit %s", (SHOWN,))
            entries = "".join(f"<li>{html.escape(text)}</li>\n" for (text,) in cursor)
        body = f"<!doctype html>\n<title>{TITLE}</title>\n<h1>{TITLE}</h1>\n<ul>\n{entries}</ul>\n"
        self.answer(200, "text/html; charset=utf-8", body)

    def sign(self):
        with transaction() as cursor:
            cursor.execute("insert into entries (text) values (%s) returning id", (self.text,))
            (number,) = cursor.fetchone()
        self.answer(201, "application/json", json.dumps({"entry": number}) + "\n")

    def carefully(self, work):
        try:
            work()
        except psycopg2.Error as error:
            self.log_message("the database: %s", error)
            self.answer(503, "text/plain", "the database does not answer\n")

    def answer(self, status, kind, body):
        body = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    # Kiln has sent everything in flight to its end before it stops a server, so nothing is waited for here.
    daemon_threads = True
    request_queue_size = 128


prepare()
server = Server(("0.0.0.0", 8000), Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever()
