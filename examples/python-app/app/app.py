"""A small web application: it greets."""

import os

from bottle import Bottle

GREETING = os.environ.get("GREETING", "Hello")

application = Bottle()


@application.get("/healthz")
def healthz():
    return {"ok": True}


@application.get("/hello/<name>")
def hello(name):
    return {"greeting": f"{GREETING}, {name}!"}
