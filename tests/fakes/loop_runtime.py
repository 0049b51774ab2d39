"""The runtime's side of a worker's socket, scripted by a test; it mirrors the conversation and checks it."""

from __future__ import annotations

import socket
import threading
from typing import Any

from toka_runtime.worker.frames import Frame, FrameSocket
from toka_runtime.worker.loop import main

Message = dict[str, Any]


class LoopRuntime:
    """Runs `loop.main` in a thread (or drives a given socket). Every wait ends after ten seconds with an error."""

    def __init__(self, sock: socket.socket | None = None) -> None:
        self.exit_code: int | None = None
        self._thread: threading.Thread | None = None
        if sock is None:
            sock, theirs = socket.socketpair()
            self._thread = threading.Thread(target=self._run, args=[theirs.detach()], daemon=True)
            self._thread.start()
        sock.settimeout(10)
        self.sock = sock
        self.frames = FrameSocket(sock)
        self.mirror: list[Message] = []
        self.notes: list[str] = []
        self.pending: Frame = {}

    def _run(self, descriptor: int) -> None:
        self.exit_code = main(descriptor)

    def hello(self, **limits: Any) -> None:
        assert self.receive()["t"] == "ready"
        self.send(
            t="hello",
            agent="a",
            run="r",
            system=["You work."],
            tools=[],
            model="m",
            max_tokens=limits.pop("max_tokens", 1000),
            limits={"max_turns": 20, "context_tokens": 100_000, **limits},
        )

    def task(self, prompt: str = "Do it.", history: list[Message] | None = None, **more: Any) -> None:
        self.mirror = list(history or [])
        self.send(t="task", task=more.pop("task", 0), attempt=1, prompt=prompt, history=history or [])

    def send(self, **frame: Any) -> None:
        self.frames.write(frame)

    def receive(self) -> Frame:
        """The next frame that is no note; deltas are applied to the mirror, which must be valid afterwards."""
        while True:
            frame = self.frames.read()
            assert frame is not None, "the worker ended"
            if frame["t"] == "note":
                self.notes.append(frame["message"])
                continue
            if frame["t"] in {"model", "task.done"}:
                assert 0 <= frame["base"] <= len(self.mirror)
                self.mirror[frame["base"] :] = frame["append"] if frame["t"] == "model" else frame["messages"]
                check_conversation(self.mirror)
            self.pending = frame
            return frame

    def expect_model(self) -> Frame:
        frame = self.receive()
        assert frame["t"] == "model", frame
        return frame

    def expect_tool(self) -> Frame:
        frame = self.receive()
        assert frame["t"] == "tool", frame
        return frame

    def expect_done(self) -> Frame:
        frame = self.receive()
        assert frame["t"] == "task.done", frame
        return frame

    def answer(self, *content: Any, stop: str = "end_turn", usage: Message | None = None) -> None:
        """Answer the model request that was received last."""
        self.send(
            t="model.result",
            id=self.pending["id"],
            ok=True,
            content=list(content),
            stop_reason=stop,
            usage=usage or {},
        )

    def fail(self, code: str, message: str = "") -> None:
        self.send(t="model.result", id=self.pending["id"], ok=False, code=code, message=message)

    def result(self, content: str = "ok", *, is_error: bool = False, finish: bool = False) -> None:
        """Answer the tool request that was received last."""
        self.send(t="tool.result", id=self.pending["id"], content=content, is_error=is_error, finish=finish)

    def end(self) -> int | None:
        self.sock.close()
        if self._thread is not None:
            self._thread.join(10)
            assert not self._thread.is_alive()
        return self.exit_code


def text(words: str) -> Message:
    return {"type": "text", "text": words}


def use(call_id: str, name: str = "read_file", **arguments: Any) -> Message:
    return {"type": "tool_use", "id": call_id, "name": name, "input": arguments}


def finish_call(call_id: str = "f", **more: Any) -> Message:
    return use(call_id, "finish", **{"status": "done", "summary": "did it", "evidence": ["x"], **more})


def results(message: Message) -> dict[str, str]:
    """Tool results of a user message, by call."""
    return {b["tool_use_id"]: b["content"] for b in message["content"] if b["type"] == "tool_result"}


def said(message: Message) -> str:
    if isinstance(message["content"], str):
        return message["content"]
    return "\n".join(block["text"] for block in message["content"] if block["type"] == "text")


def check_conversation(messages: list[Message]) -> None:
    """What the Messages API demands."""
    assert messages, "empty conversation"
    assert messages[0]["role"] == "user"
    open_calls: list[str] = []
    for before, message in zip([None, *messages], messages, strict=False):
        if before is not None:
            assert before["role"] != message["role"], "roles do not alternate"
        content = message["content"]
        assert content, "empty content"
        blocks = [text(content)] if isinstance(content, str) else content
        kinds = [block["type"] for block in blocks]
        for block in blocks:
            if block["type"] == "text":
                assert block["text"].strip(), "empty text block"
            if block["type"] == "tool_use":
                assert isinstance(block["input"], dict)
        if message["role"] == "user":
            given = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
            assert sorted(given) == sorted(open_calls), "calls and results do not match"
            assert kinds == sorted(kinds, key=lambda kind: kind != "tool_result"), "results come first"
            open_calls = []
        else:
            assert "tool_result" not in kinds
            assert not open_calls
            open_calls = [block["id"] for block in blocks if block["type"] == "tool_use"]
            assert len(set(open_calls)) == len(open_calls)
    assert not open_calls, "unanswered calls"
