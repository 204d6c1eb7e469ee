"""Chromium without a window, driven over its debugging pipe (Chrome DevTools Protocol: JSON, each ended by NUL)."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any, Self

from tests.support.waiting import wait_until

ANSWER_S = 30

Json = dict[str, Any]


class Browser:
    """One page. `requested` are the URLs it asked for, `complaints` what it logged as an error."""

    def __init__(self, profile: Path) -> None:
        self._profile = profile
        self._last_id = 0
        self._session: str | None = None
        self.requested: list[str] = []
        self.complaints: list[str] = []

    def __enter__(self) -> Self:
        commands, self._to = os.pipe()
        self._from, answers = os.pipe()
        # Chromium reads commands from descriptor 3 and writes answers to 4.
        self._process = subprocess.Popen(
            [
                *("bash", "-c", f'exec chromium "$@" 3<&{commands} 4>&{answers}', "bash"),
                *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
                *("--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe"),
                f"--user-data-dir={self._profile}",
            ],
            pass_fds=(commands, answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        self._answers = os.fdopen(self._from, "rb")
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Network", "Log", "Runtime", "Page"):
            self._call(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        self._session = None
        self._call("Browser.close")
        self._process.wait(ANSWER_S)
        os.close(self._to)
        self._answers.close()

    def open(self, url: str) -> None:
        self._call("Page.navigate", url=url)

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        answer = self._call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, script: str, timeout_s: float = 20) -> Any:
        """The expression's value as soon as it is true."""
        return wait_until(lambda: self.evaluate(script), timeout_s, lambda: script)

    def click(self, selector: str) -> None:
        self.wait_for(f"(found => found && (found.click(), true))(document.querySelector({json.dumps(selector)}))")

    def fill(self, selector: str, text: str) -> None:
        """Types into a field, in the way that React notices."""
        self.wait_for(f"document.querySelector({json.dumps(selector)}) !== null")
        self.evaluate(
            f"""{{
                const field = document.querySelector({json.dumps(selector)});
                const {{set}} = Object.getOwnPropertyDescriptor(Object.getPrototypeOf(field), "value");
                set.call(field, {json.dumps(text)});
                field.dispatchEvent(new Event("input", {{bubbles: true}}));
                field.dispatchEvent(new Event("change", {{bubbles: true}}));
            }}"""
        )

    def _call(self, method: str, **params: Any) -> Json:
        self._last_id += 1
        message: Json = {"id": self._last_id, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = json.loads(self._read())
            if answer.get("id") == self._last_id:
                assert "error" not in answer, answer["error"]
                return answer["result"]
            self._note(answer)

    def _read(self) -> bytes:
        piece = bytearray()
        while (byte := self._answers.read(1)) != b"\0":
            assert byte, "chromium ended"
            piece += byte
        return bytes(piece)

    def _note(self, event: Json) -> None:
        if event.get("method") == "Network.requestWillBeSent":
            self.requested.append(event["params"]["request"]["url"])
        elif event.get("method") == "Log.entryAdded" and event["params"]["entry"]["level"] == "error":
            self.complaints.append(event["params"]["entry"]["text"])
        elif event.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(event["params"]["exceptionDetails"]["text"])
