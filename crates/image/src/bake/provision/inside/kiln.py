"""Tells Kiln, as one line of JSON behind a record separator (RFC 7464), what each task did and where it stands."""

import json
import os
import sys

from ansible.plugins.action import reboot
from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: kiln
type: aggregate
short_description: tells Kiln what each task did
description: [One JSON line for each result]
"""
LONGEST = 2000


def say(record):
    sys.stdout.flush()
    sys.stdout.write("\x1e" + json.dumps(record) + "\n")
    sys.stdout.flush()


def nothing_to_reboot(self, tmp=None, task_vars=None):
    with open("/run/kiln/told/log", "a") as log:
        log.write("reboot reboot\n")
    return {"changed": False, "rebooted": False, "elapsed": 0, "msg": "an image that is baked has nothing to reboot"}


# The connection is local, where this action fails: it would reboot the control node.
reboot.ActionModule.run = nothing_to_reboot


def place(task):
    path, _, line = (task.get_path() or "").rpartition(":")
    return {"file": path, "line": int(line)} if path and line.isdigit() else {}


def message(result):
    if result.get("censored"):
        return "its output is hidden by no_log"
    said = [str(result[key]) for key in ("msg", "stderr", "module_stderr", "stdout") if result.get(key)]
    items = result.get("results")
    if isinstance(items, list):
        said += [message(item) for item in items if isinstance(item, dict) and (item.get("failed") or item.get("unreachable"))]
    return "\n".join(said)[:LONGEST]


def what(task, result):
    name = task.get_name().strip()
    item = result.get("item") if isinstance(result, dict) else None
    return (name if item is None else "%s (%s)" % (name, item))[:LONGEST]


def question(words, where):
    say(dict({"event": "question", "what": words[:LONGEST]}, **where))
    os._exit(4)


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "kiln"
    CALLBACK_NEEDS_ENABLED = False

    def tell(self, state, result):
        task, values = result._task, result._result
        record = {"event": "result", "state": state, "what": what(task, values)}
        if state in ("failed", "ignored"):
            record["message"] = message(values)
        elif isinstance(values.get("msg"), str):
            record["message"] = values["msg"][:LONGEST]
        say(dict(record, **place(task)))

    def v2_runner_on_ok(self, result):
        self.tell("changed" if result._result.get("changed") else "same", result)

    def v2_runner_on_failed(self, result, ignore_errors=False):
        self.tell("ignored" if ignore_errors else "failed", result)

    def v2_runner_on_unreachable(self, result):
        self.tell("failed", result)

    def v2_runner_on_skipped(self, result):
        self.tell("skipped", result)

    def v2_playbook_on_task_start(self, task, is_conditional):
        known = ("minutes", "seconds")
        if task.action in ("pause", "ansible.builtin.pause") and not any(key in task.args for key in known):
            question(str(task.args.get("prompt", "pause")), place(task))
        say(dict({"event": "result", "state": "begun", "what": what(task, {})}, **place(task)))

    def v2_playbook_on_handler_task_start(self, task):
        self.v2_playbook_on_task_start(task, False)

    def v2_playbook_on_vars_prompt(self, varname, private=True, prompt=None, encrypt=None, confirm=False,
                                   salt_size=None, salt=None, default=None, unsafe=None):
        if default is None:
            question("%s (variable `%s`)" % (prompt or varname, varname), {})
