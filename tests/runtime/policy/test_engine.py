"""The decision: deny first, fail closed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toka_runtime.policy import engine
from toka_runtime.policy.catalogue import load_catalogue
from toka_runtime.policy.engine import decide
from toka_runtime.protocol.capability import (
    Allowed,
    Denial,
    ExecuteRule,
    Layer,
    NetworkRule,
    Operation,
    OperationKind,
    PathRule,
    Rights,
)

PATH_KINDS = (OperationKind.READ, OperationKind.LIST, OperationKind.WRITE)


def path_rule(glob: str, *, within: str = "") -> PathRule:
    return PathRule(id=f"r:{glob}", capability="r", glob=glob, within=within)


EVERYTHING = Rights(
    read=(path_rule("**"),),
    write=(path_rule("**"),),
    execute=(ExecuteRule(id="x:*", capability="x", argv_prefix=("*",)),),
    network=(NetworkRule(id="n", capability="n", host="*.example.com", port=443),),
    tools=("read_file",),
)


def asked(kind: OperationKind, target: str, *argv: str) -> Operation:
    return Operation(kind=kind, target=target, argv=argv)


def allowed(rights: Rights, kind: OperationKind, target: str, *argv: str) -> bool:
    return isinstance(decide(asked(kind, target, *argv), rights), Allowed)


ODD = st.text(st.sampled_from("./a~\\\0\n *"), max_size=8)


@given(st.sampled_from(PATH_KINDS), ODD, ODD)
def test_nothing_outside_is_ever_allowed(kind: OperationKind, before: str, after: str) -> None:
    """Even with every right there is."""
    for target in (
        f"/{before}",
        f"{before}/../{after}",
        f"../{after}",
        f"{before}/..",
        "..",
        "/",
        f"/{before}/{after}",
    ):
        assert not allowed(EVERYTHING, kind, target), target


@given(st.sampled_from(PATH_KINDS), st.text(min_size=1, max_size=30))
def test_what_is_allowed_is_normalised(kind: OperationKind, target: str) -> None:
    if allowed(EVERYTHING, kind, target):
        path = target[:-1] if target.endswith("/") and target != "/" else target
        assert not target.startswith("/")
        assert "\0" not in target
        assert path in (".", "") or all(part not in ("", ".", "..") for part in path.rstrip("/").split("/"))


@given(
    st.sampled_from(PATH_KINDS),
    st.lists(st.sampled_from(["a", "b", "docs", ".git", "x.md"]), min_size=1, max_size=4).map("/".join),
    st.sampled_from(["**", "docs/**", "**/.git/**", "*.md", "a/b"]),
)
def test_deny_beats_allow(kind: OperationKind, target: str, protected: str) -> None:
    rule = path_rule(protected)
    guarded = EVERYTHING.model_copy(update={"deny_read": (rule,), "deny_write": (rule,)})
    only = Rights(read=(rule,), write=(rule,))
    # Whatever an allow rule with this glob covers, a deny rule with it takes away.
    if allowed(only, kind, target):
        decision = decide(asked(kind, target), guarded)
        assert isinstance(decision, Denial)
        assert decision.rule == rule.id


@given(st.sampled_from(OperationKind), st.text(max_size=20), st.lists(st.text(max_size=5), max_size=3))
def test_no_rights_allow_nothing(kind: OperationKind, target: str, argv: list[str]) -> None:
    assert not allowed(Rights(model=False), kind, target, *argv)


def test_an_unknown_kind_is_denied() -> None:
    operation = Operation.model_construct(kind="fs.delete", target="a", argv=(), tool="", call="")
    decision = decide(operation, EVERYTHING)
    assert isinstance(decision, Denial)
    assert decision.rule == engine.UNKNOWN_OPERATION


def test_a_tool_that_is_not_offered_is_denied() -> None:
    decision = decide(Operation(kind=OperationKind.TOOL, target="read_file"), EVERYTHING)
    assert isinstance(decision, Denial)
    assert decision.rule == engine.NOT_OFFERED


class TestPaths:
    def test_a_tree_needs_a_rule_for_the_tree(self) -> None:
        rights = Rights(read=(path_rule("docs/**"), path_rule("*.md")))
        assert allowed(rights, OperationKind.READ, "docs/")
        assert allowed(rights, OperationKind.READ, "docs/deep/")
        assert allowed(rights, OperationKind.READ, "a.md")
        assert not allowed(rights, OperationKind.READ, "a.md/")
        assert not allowed(rights, OperationKind.READ, "./")
        assert allowed(EVERYTHING, OperationKind.LIST, "./")

    def test_both_globs_of_a_scoped_rule_must_match(self) -> None:
        rights = Rights(write=(path_rule("docs/**", within="**/*.md"),))
        assert allowed(rights, OperationKind.WRITE, "docs/a.md")
        assert not allowed(rights, OperationKind.WRITE, "docs/a.rs")
        assert not allowed(rights, OperationKind.WRITE, "a.md")

    def test_changing_a_tree_that_holds_something_protected(self) -> None:
        rights = EVERYTHING.model_copy(update={"deny_write": (path_rule("keep/me/**"),)})
        for target in ("./", "keep/", "keep/me/", "keep/me/x", "KEEP/ME/x"):
            assert not allowed(rights, OperationKind.WRITE, target), target
        for target in ("keepsake/", "other/", "keep/you"):
            assert allowed(rights, OperationKind.WRITE, target), target

    def test_protection_ignores_case(self) -> None:
        rights = EVERYTHING.model_copy(update={"deny_write": (path_rule("**/.git/**"),)})
        assert not allowed(rights, OperationKind.WRITE, "sub/.GIT/hooks/pre-commit")

    def test_the_reason_says_what_is_granted(self) -> None:
        decision = decide(asked(OperationKind.WRITE, "src/a"), Rights(write=(path_rule("docs/**"),)))
        assert isinstance(decision, Denial)
        assert "docs/**" in decision.reason


class TestPrograms:
    RULE = ExecuteRule(
        id="g", capability="g", argv_prefix=("git", "log"), refuse=("--output*", "-O*"), inside_only=True
    )
    RIGHTS = Rights(execute=(RULE,), deny_read=(path_rule("**/.git/**"),))

    @pytest.mark.parametrize("argv", [("git", "log"), ("git", "log", "-5", "--", "src"), ("git", "log", "a..b")])
    def test_covered(self, argv: tuple[str, ...]) -> None:
        assert allowed(self.RIGHTS, OperationKind.EXECUTE, "", *argv)

    @pytest.mark.parametrize(
        "argv",
        [
            (),
            ("git",),
            ("log",),
            ("/usr/bin/git", "log"),
            ("git", "-C", "/", "log"),
            ("git", "push"),
            ("git", "log", "--output=x"),
            ("git", "log", "-Oless"),
            ("git", "log", "/etc"),
            ("git", "log", "~root"),
            ("git", "log", "--since=/etc"),
            ("git", "log", "-S/etc"),
            ("git", "log", ".."),
            ("git", "log", "a/../.."),
            ("git", "log", ".git/config"),
            ("git", "log", "./.git/"),
            ("git", "log", "--x=sub/.git/config"),
        ],
    )
    def test_not_covered(self, argv: tuple[str, ...]) -> None:
        assert not allowed(self.RIGHTS, OperationKind.EXECUTE, "", *argv)

    def test_free_text_is_no_path(self) -> None:
        rights = Rights(execute=(self.RULE.model_copy(update={"argv_prefix": ("git", "commit")}),))
        message = "Fix a/b: see https://example.com/x (was ../y)"
        assert allowed(rights, OperationKind.EXECUTE, "", "git", "commit", "-m", message)

    def test_only_options(self) -> None:
        rule = ExecuteRule(id="u", capability="u", argv_prefix=("uniq",), options_only=True)
        assert allowed(Rights(execute=(rule,)), OperationKind.EXECUTE, "", "uniq", "-c")
        assert not allowed(Rights(execute=(rule,)), OperationKind.EXECUTE, "", "uniq", "in", "out")

    def test_an_unread_command_needs_the_right_to_any_program(self) -> None:
        assert not allowed(self.RIGHTS, OperationKind.EXECUTE, "git log $(x)")
        assert allowed(EVERYTHING, OperationKind.EXECUTE, "git log $(x)")


class TestNetwork:
    RIGHTS = Rights(
        network=(
            NetworkRule(id="a", capability="n", host="api.example.com", port=443),
            NetworkRule(id="b", capability="n", host="*.cdn.example.com", port=443),
        )
    )

    @pytest.mark.parametrize("target", ["api.example.com:443", "x.cdn.example.com:443", "a.b.cdn.example.com:443"])
    def test_covered(self, target: str) -> None:
        assert allowed(self.RIGHTS, OperationKind.CONNECT, target)

    @pytest.mark.parametrize(
        "target",
        [
            "api.example.com:80",
            "API.example.com:443",
            "api.example.com.:443",
            "api.example.com.evil.net:443",
            "evilapi.example.com:443",
            "cdn.example.com:443",
            ".cdn.example.com:443",
            "evilcdn.example.com:443",
            "api.example.com",
            "api.example.com:0",
            "api.example.com:٤٤٣",
            "api.example.com:443:443",
            "api.example.com\n:443",
            "api.example.com/x:443",
            "user@api.example.com:443",
            "",
        ],
    )
    def test_not_covered(self, target: str) -> None:
        assert not allowed(self.RIGHTS, OperationKind.CONNECT, target)


class TestDenialsNameWhatIsMissing:
    @pytest.mark.parametrize(
        ("operation", "capability"),
        [
            (asked(OperationKind.WRITE, "src/a.rs"), "filesystem-write"),
            (asked(OperationKind.READ, "src/a.rs"), "filesystem-read"),
            (asked(OperationKind.EXECUTE, "git status", "git", "status"), "git-read"),
            (asked(OperationKind.EXECUTE, "git commit -m x", "git", "commit", "-m", "x"), "git-access"),
            (asked(OperationKind.EXECUTE, "cargo test", "cargo", "test"), "cargo-test-execution"),
            (asked(OperationKind.EXECUTE, "cargo build", "cargo", "build"), "cargo-execution"),
            (asked(OperationKind.EXECUTE, "nc -l 80", "nc", "-l", "80"), "script-execution"),
            (asked(OperationKind.EXECUTE, "echo $(id)"), "script-execution"),
            (asked(OperationKind.CONNECT, "api.github.com:443"), "github-api-access"),
            (asked(OperationKind.CONNECT, "example.com:443"), "network-access"),
            (asked(OperationKind.MODEL, "some-model"), "model-access"),
            (asked(OperationKind.WRITE, "/etc/passwd"), ""),
        ],
    )
    def test_least_privilege(self, operation: Operation, capability: str) -> None:
        decision = decide(operation, Rights(model=False), load_catalogue().remedies)
        assert isinstance(decision, Denial)
        assert decision.capability == capability
        assert decision.layer is Layer.POLICY
        assert decision.operation == operation
        assert decision.rule.startswith("deny:")
        assert decision.reason

    def test_the_hint_is_the_narrowest_grant(self) -> None:
        decision = decide(asked(OperationKind.CONNECT, "example.com:443"), Rights(), load_catalogue().remedies)
        assert isinstance(decision, Denial)
        assert "grants: { network-access: ['example.com:443'] }" in decision.hint
