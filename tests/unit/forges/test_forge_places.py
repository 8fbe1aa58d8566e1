"""Where the API is and which repository is meant, out of the URL of a Git repository."""

from __future__ import annotations

import pytest

from reconcile.errors import Invalid
from reconcile.forges.remote import place

FOUND = [
    ("github", "https://github.com/acme/fleet", "", "https://api.github.com", "github.com/acme/fleet"),
    ("github", "https://github.com/acme/fleet.git/", "", "https://api.github.com", "github.com/acme/fleet"),
    ("github", "ssh://git@github.com/acme/fleet.git", "", "https://api.github.com", "github.com/acme/fleet"),
    ("github", "ssh://git@ssh.github.com:443/acme/fleet.git", "", "https://api.github.com", "ssh.github.com/acme/fleet"),
    ("github", "git@github.com:acme/fleet.git", "", "https://api.github.com", "github.com/acme/fleet"),
    ("github", "https://git.corp.example/acme/fleet", "", "https://git.corp.example/api/v3", "git.corp.example/acme/fleet"),
    ("github", "https://git.corp.example:8443/a/b", "", "https://git.corp.example:8443/api/v3", "git.corp.example:8443/a/b"),
    ("github", "ssh://git@git.corp.example:2222/a/b", "", "https://git.corp.example/api/v3", "git.corp.example/a/b"),
    ("github", "https://x/a/b", "https://github.com", "https://api.github.com", "x/a/b"),
    ("github", "https://x/a/b", "https://api.github.com/", "https://api.github.com", "x/a/b"),
    ("github", "https://x/a/b", "http://127.0.0.1:8080", "http://127.0.0.1:8080/api/v3", "x/a/b"),
    ("gitlab", "https://gitlab.com/acme/apps/eu/fleet.git", "", "https://gitlab.com/api/v4", "gitlab.com/acme/apps/eu/fleet"),
    ("gitlab", "ssh://git@altssh.gitlab.com:443/acme/fleet", "", "https://gitlab.com/api/v4", "altssh.gitlab.com/acme/fleet"),
    ("gitlab", "http://gitlab.lan:8080/acme/fleet", "", "http://gitlab.lan:8080/api/v4", "gitlab.lan:8080/acme/fleet"),
    ("gitlab", "https://h/gitlab/acme/fleet", "https://h/gitlab/api/v4", "https://h/gitlab/api/v4", "h/acme/fleet"),
    ("gitlab", "git@h:gitlab/fleet.git", "https://h/gitlab/api/v4", "https://h/gitlab/api/v4", "h/gitlab/fleet"),
    ("gitea", "https://codeberg.org/acme/fleet", "", "https://codeberg.org/api/v1", "codeberg.org/acme/fleet"),
    ("gitea", "https://h/gitea/acme/fleet.git", "", "https://h/gitea/api/v1", "h/acme/fleet"),
    ("gitea", "https://[2001:db8::1]:3000/acme/fleet", "", "https://[2001:db8::1]:3000/api/v1", "[2001:db8::1]:3000/acme/fleet"),
    ("gitea", "https://user:pw@h/acme/fleet", "", "https://h/api/v1", "h/acme/fleet"),
]


@pytest.mark.parametrize(("provider", "url", "address", "api", "name"), FOUND)
def test_finds_api_and_repository(provider: str, url: str, address: str, api: str, name: str) -> None:
    found = place(provider, url, address)
    assert (found.api, found.name) == (api, name)


def test_a_project_of_gitlab_is_one_part_of_the_path() -> None:
    assert place("gitlab", "https://gitlab.com/acme/apps/fleet").project == "acme%2Fapps%2Ffleet"
    assert place("gitea", "https://h/acme/fleet").project == "acme/fleet"


@pytest.mark.parametrize(
    ("api", "graphql"),
    [
        ("https://api.github.com", "https://api.github.com/graphql"),
        ("https://git.corp.example/api/v3", "https://git.corp.example/api/graphql"),
    ],
)
def test_graphql_is_beside_the_rest_api(api: str, graphql: str) -> None:
    assert place("github", "https://github.com/a/b", api).graphql == graphql


@pytest.mark.parametrize(
    ("provider", "url", "address", "told"),
    [
        ("bitbucket", "https://h/a/b", "", "unknown provider 'bitbucket'"),
        ("github", "https://github.com/fleet", "", "owner and its name"),
        ("github", "https://github.com/", "", "owner and its name"),
        ("github", "https://github.com/acme/..", "", "owner and its name"),
        ("github", "https://github.com/acme/%2e%2e", "", "owner and its name"),
        ("github", "https://github.com/acme/fle%0aet", "", "owner and its name"),
        ("gitlab", "https://gitlab.com/acme/a%2Fb/fleet", "", "owner and its name"),
        ("github", "file:///srv/git/a/b", "", "http, https or ssh"),
        ("github", "ext::sh -c id/a/b", "", "pull requests need|owner and its name"),
        ("github", "https://h:port/a/b", "", "cannot be read"),
        ("gitea", "https://h/a/b", "ftp://h", "not an address"),
        ("gitea", "https://h/a/b", "https://user:secret@h/api/v1", "not an address"),
        ("gitea", "https://h/a/b", "https://h/api/v1?token=secret", "not an address"),
        ("gitea", "https://h/a/b", "https://h:x/api/v1", "not an address"),
    ],
)
def test_says_what_cannot_be_used(provider: str, url: str, address: str, told: str) -> None:
    with pytest.raises(Invalid, match=told) as caught:
        place(provider, url, address)
    assert "secret" not in str(caught.value)
