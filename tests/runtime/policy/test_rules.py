"""From declared capabilities and grants to rights."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toka_runtime.policy.catalogue import load_catalogue
from toka_runtime.policy.engine import decide
from toka_runtime.policy.rules import compile_rights
from toka_runtime.protocol.capability import Allowed, Operation, OperationKind, Rights
from toka_runtime.protocol.ids import AgentName
from toka_runtime.protocol.spec import AgentSpec, ScopedGrant, Security

READING = ("list_files", "read_file", "search_text")
R, W, X, N = OperationKind.READ, OperationKind.WRITE, OperationKind.EXECUTE, OperationKind.CONNECT


def rights(*declared: str, **grants: list[str]) -> Rights:
    """Grants by keyword: `filesystem_write=["docs/**"]`."""
    spec = AgentSpec(
        name=AgentName("a"),
        security=Security(capabilities_required=declared),
        grants=tuple(
            ScopedGrant(capability=name.replace("_", "-"), scopes=tuple(scopes)) for name, scopes in grants.items()
        ),
    )
    return compile_rights(spec, load_catalogue())


def may(found: Rights, kind: OperationKind, target: str) -> bool:
    argv = tuple(target.split()) if kind is X else ()
    return isinstance(decide(Operation(kind=kind, target=target, argv=argv), found), Allowed)


class TestDeclared:
    def test_nothing_declared_reads_its_workspace(self) -> None:
        found = rights()
        assert found.tools == (*READING, "finish")
        assert may(found, R, "a/b")
        assert not may(found, W, "a/b")
        assert not may(found, X, "ls")
        assert not may(found, N, "example.com:443")
        assert found.model

    def test_unknown_names_grant_nothing(self) -> None:
        found = rights("launch-rockets")
        assert found.unknown == ("launch-rockets",)
        assert found.model_copy(update={"unknown": (), "text": ()}) == rights().model_copy(update={"text": ()})
        assert any("launch-rockets" in line for line in found.text)

    def test_synonyms(self) -> None:
        assert rights("file-system-write") == rights("filesystem-write")
        assert rights("ci-cd-integration") == rights("ci-integration")

    def test_subset(self) -> None:
        part, whole = rights("cargo-test-execution"), rights("cargo-execution")
        assert may(part, X, "cargo test --workspace")
        assert may(whole, X, "cargo test --workspace")
        assert not may(part, X, "cargo build")
        assert may(whole, X, "cargo build")

    def test_writing_stays_in_the_folder_and_out_of_git(self) -> None:
        found = rights("filesystem-write")
        assert may(found, W, "a/b.rs")
        for target in (".git", ".git/hooks/pre-commit", ".git/config", "x/.git/config", "/etc/passwd", "../x", "./"):
            assert not may(found, W, target), target
        assert {"write_file", "edit_file"} <= set(found.tools)

    def test_tools_follow_from_rights(self) -> None:
        assert "run_command" in rights("git-access").tools
        assert "fetch_url" in rights("github-api-access").tools
        assert "write_file" not in rights("git-access").tools
        assert rights("script-execution", "filesystem-write", "github-api-access").tools == (
            *READING,
            "write_file",
            "edit_file",
            "run_command",
            "fetch_url",
            "finish",
        )

    def test_text_tools_come_with_the_right_to_run_something(self) -> None:
        assert may(rights("git-access"), X, "head -5 README.md")
        assert not may(rights(), X, "head -5 README.md")

    def test_the_runtimes_credential_is_never_passed_on(self) -> None:
        found = rights(environment_variable_management=["ANTHROPIC_API_KEY", "MY_SETTING"])
        assert "MY_SETTING" in found.environment
        assert "ANTHROPIC_API_KEY" not in found.environment
        assert any("ANTHROPIC_API_KEY" in line for line in found.refused)

    def test_published_specs(self, toka_specs: Path) -> None:
        from toka_runtime.specs.loader import load_paths

        report = load_paths((toka_specs,))
        found = {
            file.spec.name: compile_rights(file.spec, load_catalogue())
            for file in report.files
            if file.spec is not None
        }
        assert len(found) == 9
        assert {name: compiled.unknown for name, compiled in found.items() if compiled.unknown} == {}
        assert all(set(READING) <= set(compiled.tools) for compiled in found.values())
        assert all(compiled.write for compiled in found.values())
        assert may(found[AgentName("github-cicd-issues-resolution")], X, "./scripts/check.sh")
        assert not may(found[AgentName("llm-credentials-setup")], W, "src/main.rs")


class TestScopes:
    def test_a_scope_limits_what_is_declared(self) -> None:
        found = rights("filesystem-write", filesystem_write=["docs/**", "README.md"])
        assert may(found, W, "docs/a/b.md")
        assert may(found, W, "README.md")
        assert not may(found, W, "src/a.rs")
        assert found.write[0].id == "filesystem-write:docs/**"

    def test_a_synonym_is_scoped_alike(self) -> None:
        assert not may(rights("file-system-write", filesystem_write=["docs"]), W, "src/a")
        assert not may(rights("filesystem-write", file_system_write=["docs"]), W, "src/a")

    def test_a_grant_alone_adds(self) -> None:
        found = rights(filesystem_write=["docs/"])
        assert may(found, W, "docs/a")
        assert not may(found, W, "src/a")

    def test_a_scope_on_reading_limits_the_baseline(self) -> None:
        found = rights("git-access", filesystem_read=["docs"])
        assert may(found, R, "docs/a")
        assert not may(found, R, "src/a")
        assert not may(found, X, "cat src/a"), "text tools would read around the scope"

    def test_a_scope_never_widens(self) -> None:
        found = rights("workflow-management", workflow_management=["**"])
        assert may(found, W, ".github/workflows/ci.yml")
        assert not may(found, W, "src/a")
        assert not may(rights("workflow-management", workflow_management=["src/**"]), W, "src/a")

    def test_included_capabilities_obey(self) -> None:
        found = rights("cargo-execution", cargo_execution=["cargo test"])
        assert may(found, X, "cargo test -q")
        assert not may(found, X, "cargo build")
        assert not may(found, X, "cargo bench")

    def test_programs(self) -> None:
        found = rights(script_execution=["python3 scripts/check.py", "make"])
        assert may(found, X, "python3 scripts/check.py --all")
        assert may(found, X, "make test")
        assert not may(found, X, "python3 -c x")
        assert not may(found, X, "sh")

    def test_hosts(self) -> None:
        found = rights("network-access", network_access=["api.example.com", "*.data.example.com:8443"])
        assert may(found, N, "api.example.com:443")
        assert may(found, N, "x.data.example.com:8443")
        assert not may(found, N, "api.example.com:80")
        assert not may(found, N, "example.com:443")
        assert "fetch_url" in found.tools

    def test_a_host_scope_never_widens(self) -> None:
        found = rights("github-api-access", github_api_access=["evil.example.com:443"])
        assert found.network == ()
        assert any("evil.example.com" in line for line in found.refused)

    def test_what_needs_a_scope_grants_nothing_without(self) -> None:
        found = rights("network-access")
        assert found.network == ()
        assert any("network-access" in line for line in found.refused)
        assert any("network-access" in line for line in found.text)

    def test_a_scope_on_what_has_none_grants_nothing(self) -> None:
        found = rights("git-access", "performance-monitoring", performance_monitoring=["x"])
        assert any("cannot be scoped" in line for line in found.refused)
        assert not may(rights("model-access", model_access=["x"]), OperationKind.MODEL, "m")

    @pytest.mark.parametrize("scope", ["/etc/**", "../**", "a/../../b", "~/x", "", "a\0b", "a\nb"])
    def test_scopes_that_lead_out_grant_nothing(self, scope: str) -> None:
        found = rights("filesystem-write", filesystem_write=[scope])
        assert found.write == ()
        assert len(found.refused) == 1

    def test_protected_stays_protected(self) -> None:
        assert not may(rights(filesystem_write=[".git/**"]), W, ".git/hooks/x")

    @given(
        st.lists(st.sampled_from(["docs", "docs/**", "*.md", "**", "/etc", "..", "a/*", "[x", "~"]), max_size=4),
        st.lists(st.sampled_from(["docs", "a", "x.md", "..", "etc", ".git", "[x"]), min_size=1, max_size=4).map(
            "/".join
        ),
    )
    def test_scoped_rights_are_part_of_the_unscoped(self, scopes: list[str], target: str) -> None:
        narrow, wide = rights("filesystem-write", filesystem_write=scopes or ["gone"]), rights("filesystem-write")
        assert not may(narrow, W, target) or may(wide, W, target)


def test_the_text_says_it_all() -> None:
    text = "\n".join(rights("filesystem-write", "git-access", "script-execution", "github-api-access", "bogus").text)
    for words in (
        "read everything in its folder (filesystem-read)",
        "write everything in its folder (filesystem-write)",
        "any program (script-execution)",
        "connect to api.github.com:443 (github-api-access)",
        "never write .git/**",
        "bogus: no such capability",
    ):
        assert words in text
