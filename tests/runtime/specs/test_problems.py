"""Bad input: every problem at its line and column, with a code and a hint; nothing crashes, nothing is guessed."""

from __future__ import annotations

import pytest

from toka_runtime.specs.findings import Problem
from toka_runtime.specs.loader import load_text

HEAD = "metadata: {name: a}\ntasks: {default: [{description: work}]}\n"


def errors(text: str | bytes, name: str = "x.yaml") -> tuple[Problem, ...]:
    file = load_text(text if isinstance(text, bytes) else text.encode(), name).files[0]
    assert not file.ok
    assert file.spec is None
    assert all(problem.file == name for problem in file.errors)
    return file.errors


def only(text: str | bytes, name: str = "x.yaml") -> Problem:
    found = errors(text, name)
    assert len(found) == 1, found
    return found[0]


@pytest.mark.parametrize(
    ("body", "at", "code", "hint"),
    [
        ("spec: {priority: urgent}", (3, 18), "spec.bad_value", "one of critical, high, medium, low"),
        ("spec: {priority: hihg}", (3, 18), "spec.bad_value", "did you mean “high”?"),
        ("spec: {priority: [high]}", (3, 18), "spec.wrong_type", ""),
        ("spec: [1]", (3, 7), "spec.wrong_type", ""),
        ("objectives:\n  - deliverable: x", (4, 5), "spec.missing_key", "add “description: …”"),
        ("objectives: {a: b}", (3, 13), "spec.missing_key", "add “description: …”"),
        ("objectives: [[x]]", (3, 14), "spec.wrong_type", ""),
        ("reporting: {frequency: dayly}", (3, 24), "spec.bad_value", "did you mean “daily”?"),
        ("security: {sandbox: maybe}", (3, 21), "spec.bad_value", "one of required, best-effort, none"),
        ("security: {strict: 3}", (3, 20), "spec.wrong_type", ""),
        ("security: {sandox: false}", (3, 12), "spec.unknown_key", "did you mean “sandbox”?"),
        ("security: {resource_limit: {}}", (3, 12), "spec.unknown_key", "did you mean “resource_limits”?"),
        ("security: {capabilities_required: {a: b}}", (3, 35), "spec.wrong_type", ""),
        ("security: {capabilities_required: [[a]]}", (3, 36), "spec.wrong_type", ""),
        ("dependencies: {requierd: {b: x}}", (3, 16), "spec.unknown_key", "did you mean “required”?"),
        ("dependencies: {required: {bad name: x}}", (3, 27), "spec.bad_name", "letters, digits"),
        ("dependencies: {optional: {b: [x]}}", (3, 30), "spec.wrong_type", ""),
        ("dependencies: {optional: {b: {condition: done}}}", (3, 42), "spec.bad_value", "one of started, completed"),
        ("budget: {max_tokens: -5}", (3, 22), "spec.bad_value", "a whole number, at least 1"),
        ("budget: {max_tokens: many}", (3, 22), "spec.bad_value", "a whole number, at least 1"),
        ("budget: {max_cost_usd: cheap}", (3, 24), "spec.bad_value", "write US dollars, such as 2.50"),
        ("budget: {max_token: 5}", (3, 10), "spec.unknown_key", "did you mean “max_tokens”?"),
        ("restart: sometimes", (3, 10), "spec.bad_value", "one of never, on-failure"),
        ("restart: {max_restarts: 2}", (3, 10), "spec.missing_key", "never or on-failure"),
        ("restart: [on-failure]", (3, 10), "spec.wrong_type", ""),
        ("health: {repeats: 1}", (3, 19), "spec.bad_value", ""),
        ("health: {on_stuck: kill}", (3, 20), "spec.bad_value", "one of warn, pause, fail"),
        ("health: {stall_aftr: 3m}", (3, 10), "spec.unknown_key", "did you mean “stall_after”?"),
        ("grants: {filesystem-write: []}", (3, 10), "spec.bad_value", "name what it covers"),
        ("grants: {filesystem-write: {docs: x}}", (3, 28), "spec.wrong_type", ""),
        ("model: gpt four", (3, 8), "spec.bad_value", ""),
        ("objectives: [{description: d, verify: ''}]", (3, 39), "spec.bad_value", "a command whose exit code 0"),
        ("objectives: [{description: d, verify: []}]", (3, 39), "spec.bad_value", "a command whose exit code 0"),
        ("objectives: [{description: d, verify: {timeout: 3s}}]", (3, 39), "spec.bad_value", "a command whose"),
        ("objectives: [{description: d, verify: {comand: x}}]", (3, 40), "spec.unknown_key", "did you mean “command”?"),
        ("spec: {priority: high}\nspec: {}", (4, 1), "spec.duplicate_key", "remove one"),
        ("security: {max-x: 1, sandbox: true, Sandbox: false}", (3, 37), "spec.duplicate_key", "remove one"),
    ],
)
def test_wrong_values(body: str, at: tuple[int, int], code: str, hint: str) -> None:
    found = errors(HEAD + body + "\n")
    assert ((found[0].line, found[0].column), found[0].code) == (at, code), found
    assert hint in found[0].hint


@pytest.mark.parametrize(
    ("limit", "hint"),
    [
        ("max_memory: lots", "512MB"),
        ("max_memory: 512", "write the unit"),
        ("max_memory: 0MB", "write the unit"),
        ("max_memory: true", "512MB"),
        ("max_memory: [512MB]", ""),
        ("max_cpu: 75", "75%"),
        ("max_cpu: -1", "75%"),
        ("max_cpu: 0%", "above zero"),
        ("timeout: soon", "30m"),
        ("timeout: .inf", "30m"),
        ("max_disk_usage: 1 goat", "512MB"),
        ("max_network_bandwidth: 100MB", "100Mbps"),
        ("max_processes: 0", "at least 1"),
        ("max_processes: 1.5", "at least 1"),
        ("max_mem: 512MB", "did you mean “max_memory”?"),
    ],
)
def test_a_limit_that_cannot_be_read_never_becomes_no_limit(limit: str, hint: str) -> None:
    problem = only(HEAD + f"security:\n  resource_limits:\n    {limit}\n")
    assert problem.line == 5
    assert hint in problem.hint


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("two words", "spec.bad_name"),
        ("../up", "spec.bad_name"),
        ("a/b", "spec.bad_name"),
        ("-rf", "spec.bad_name"),
        (".hidden", "spec.bad_name"),
        ("a..b", "spec.bad_name"),
        ("x.lock", "spec.bad_name"),
        ('"a\\nb"', "spec.bad_name"),
        ("é", "spec.bad_name"),
        ('""', "spec.missing_key"),
        ("", "spec.missing_key"),
        ("[a]", "spec.wrong_type"),
        ("n" * 257, "spec.too_long"),
    ],
)
def test_names_that_are_none(name: str, code: str) -> None:
    problem = only(f"metadata:\n  name: {name}\ntasks: {{default: [{{description: work}}]}}\n")
    assert (problem.line, problem.column, problem.code) == (2, 9 if name else 8, code)


def test_a_file_without_metadata_says_what_to_add() -> None:
    problem = only("tasks: {default: [{description: work}]}\n", "stray.yaml")
    assert (problem.code, problem.line) == ("spec.missing_key", 1)
    assert "metadata" in problem.hint
    assert load_text(b"tasks: {}\n", "stray.yaml").files[0].name == "stray"


@pytest.mark.parametrize("branch", ["-D", "a b", "a..b", "x.lock", "a/.b", "end/", "a~1", "a:b", "@", "feat@{1}"])
def test_branches_that_git_refuses(branch: str) -> None:
    problem = only(f"metadata: {{name: a, branch: '{branch}'}}\ntasks: {{default: [{{description: work}}]}}\n")
    assert problem.code == "spec.bad_branch"


def test_all_problems_of_a_file_are_told_at_once_in_order() -> None:
    found = errors(
        "metadata: {name: a b, branch: '-x'}\nspec: {priority: now}\ntasks:\n  default:\n    - {priority: later}\n"
        "security: {resource_limits: {max_cpu: fast}}\n"
    )
    assert [problem.line for problem in found] == [1, 1, 2, 5, 5, 6]
    assert {problem.code for problem in found} == {
        "spec.bad_name",
        "spec.bad_branch",
        "spec.bad_value",
        "spec.missing_key",
    }
    assert found == tuple(sorted(found, key=lambda problem: (problem.line, problem.column)))


def test_long_descriptions() -> None:
    fits = load_text(f"metadata: {{name: a}}\ntasks: {{default: [{{description: {'x' * 4096}}}]}}\n".encode())
    assert fits.ok
    problem = only(f"metadata: {{name: a}}\ntasks: {{default: [{{description: {'x' * 4097}}}]}}\n")
    assert (problem.code, problem.hint) == ("spec.too_long", "at most 4,096")


@pytest.mark.parametrize(
    ("text", "at", "code", "hint"),
    [
        ("metadata:\n  name: a\n nmae: b\n", (3, 2), "spec.yaml_syntax", "indentation"),
        ("metadata:\n\tname: a\n", (2, 1), "spec.yaml_syntax", "spaces"),
        ("a: b: c\n", (1, 5), "spec.yaml_syntax", "quotes"),
        ("a: [1, 2\nb: 3\n", (2, 2), "spec.yaml_syntax", "not closed"),
        ('a: "x\n', (2, 1), "spec.yaml_syntax", "quote is not closed"),
        ("a: *nobody\n", (1, 4), "spec.yaml_syntax", ""),
        ("a: &x [*x]\n", (1, 8), "spec.alias_loop", ""),
        ("a: !!python/object/apply:os.system [id]\n", (1, 4), "spec.tag", "plain YAML"),
        ("a: !secret x\n", (1, 4), "spec.tag", "plain YAML"),
        ("metadata: {name: a}\n---\nmetadata: {name: b}\n", (2, 1), "spec.many_documents", "one agent a file"),
        ("? {a: b}\n: c\n", (1, 3), "spec.wrong_type", "a key is text"),
        ("- a\n- b\n", (1, 1), "spec.not_a_mapping", "metadata"),
        ("only words\n", (1, 1), "spec.not_a_mapping", "metadata"),
        ("# nothing but a comment\n", (0, 0), "spec.not_a_mapping", "metadata"),
        ("a: " + "[" * 100, (1, 67), "spec.too_deep", ""),
        ("metadata: {name: a}\nx: \x1b[31m\n", (2, 4), "spec.control_character", "remove"),
        ("metadata: {name: a}\nx: 'a\u202eb'\n", (2, 6), "spec.control_character", "remove"),
        ('metadata: {name: a}\nx: "\\e[31m"\n', (2, 4), "spec.control_character", "escape"),
        ('metadata: {name: a}\n"\\u0007": x\n', (2, 1), "spec.control_character", "escape"),
    ],
)
def test_text_that_is_no_document(text: str, at: tuple[int, int], code: str, hint: str) -> None:
    problem = errors(text)[0]
    assert ((problem.line, problem.column), problem.code) == (at, code)
    assert hint in problem.hint


@pytest.mark.parametrize(
    ("data", "code", "message"),
    [
        (b"", "spec.empty", "is empty"),
        (b" \n\n", "spec.empty", "is empty"),
        (b"metadata:\n  name: \xff\n", "spec.not_utf8", "byte 0xff"),
        ("metadata: {name: a}".encode("utf-16"), "spec.not_utf8", "is not UTF-8"),
        (b"x" * 1_000_001, "spec.too_large", "larger than 1 MB"),
    ],
)
def test_bytes_that_are_no_text(data: bytes, code: str, message: str) -> None:
    problem = only(data)
    assert problem.code == code
    assert message in problem.message


def test_where_the_first_bad_byte_is() -> None:
    problem = only(b"metadata:\n  name: \xff\n")
    assert (problem.line, problem.column) == (2, 9)


def test_a_byte_order_mark_is_no_problem() -> None:
    assert load_text(b"\xef\xbb\xbf" + HEAD.encode()).ok


def test_an_alias_bomb_is_stopped_before_it_grows() -> None:
    lines = ["a0: &a0 [" + ",".join("x" * 10) + "]"]
    lines += [f"a{n}: &a{n} [" + ",".join([f"*a{n - 1}"] * 10) + "]" for n in range(1, 10)]
    assert errors("\n".join(lines))[0].code == "spec.too_many_aliases"
    assert errors(f"a: &a {'x' * 60_000}\nb: [*a, *a]\n")[0].code == "spec.too_many_aliases", "long texts count too"


def test_a_file_of_too_many_values_is_refused() -> None:
    assert errors("[" + "1," * 30_000 + "]")[0].code == "spec.too_large"


def test_messages_hold_nothing_that_drives_a_terminal() -> None:
    found = errors(
        'metadata: {name: a}\nspec: {priority: "a\\nb\\tc\u200b"}\nsecurity: {resource_limits: {max_cpu: x}}\n'
    )
    for problem in found:
        assert problem.message.isprintable()
        assert len(problem.message) < 500


def test_warnings_name_what_was_probably_meant() -> None:
    text = HEAD + "objectivs: []\nreporting: {chanels: [x]}\n"
    file = load_text(text.encode()).files[0]
    assert file.ok
    assert [(p.line, p.column, p.code, p.hint) for p in file.warnings] == [
        (3, 1, "spec.unknown_key", "did you mean “objectives”?"),
        (4, 13, "spec.unknown_key", "did you mean “channels”?"),
    ]
    assert file.spec is not None
    assert set(file.spec.extensions) == {"objectivs", "reporting.chanels"}
