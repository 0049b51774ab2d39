"""One meaning of globs for rules, scopes and tools."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toka_runtime.worker.toolbox.globs import compile_glob, is_tree, matches

NAMES = st.text(st.sampled_from("ab.-_é"), min_size=1, max_size=4)
PATHS = st.lists(NAMES, min_size=1, max_size=5).map("/".join)


@pytest.mark.parametrize(
    ("glob", "yes", "no"),
    [
        ("**", ["a", "a/b", ""], []),
        ("docs/**", ["docs", "docs/a", "docs/a/b"], ["docsx", "x/docs", ""]),
        ("**/*.md", ["a.md", "x/y/a.md", ".md"], ["a.mdx", "a.md/x"]),
        ("**/.git/**", [".git", "a/.git", "a/.git/hooks/x"], [".gitignore", "a.git/x"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b"], ["ab", "a/xb", "a/b/c"]),
        ("a/**/**", ["a", "a/b"], ["ab"]),
        ("*", ["a", ".hidden"], ["a/b", ""]),
        ("?.rs", ["a.rs"], ["ab.rs", "/.rs"]),
        ("[ab].rs", ["a.rs"], ["c.rs"]),
        ("[!a].rs", ["b.rs"], ["a.rs", "/.rs"]),
        ("[!-~]", ["a"], ["/", "ab"]),
        ("[", ["["], ["a"]),
        ("[]", ["[]"], ["a"]),
        ("[z-a]", ["[z-a]"], ["b"]),
        ("a.b+c", ["a.b+c"], ["axb+c", "a.bbc"]),
        ("**/*kernel*/**", ["kernel", "x/toka-kernel/a"], ["kern/el"]),
        ("a**b", ["ab", "axb"], ["a/b"]),
    ],
)
def test_meaning(glob: str, yes: list[str], no: list[str]) -> None:
    assert [path for path in yes if not matches(glob, path)] == []
    assert [path for path in no if matches(glob, path)] == []


@given(PATHS)
def test_a_path_matches_itself_and_everything(path: str) -> None:
    assert matches(path, path)
    assert matches("**", path)
    assert matches(f"**/{path}", path)


@given(PATHS, PATHS)
def test_a_tree_covers_what_lies_below(folder: str, rest: str) -> None:
    assert is_tree(f"{folder}/**")
    assert matches(f"{folder}/**", folder)
    assert matches(f"{folder}/**", f"{folder}/{rest}")
    assert not matches(f"{folder}/**", f"{folder}x/{rest}")


@given(st.text(st.sampled_from("*?[]!-^a/\\.~|&"), max_size=12), PATHS)
def test_any_text_is_a_glob(glob: str, path: str) -> None:
    compile_glob(glob).fullmatch(path)
