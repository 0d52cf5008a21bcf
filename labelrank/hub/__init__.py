"""The Hugging Face Hub: the files of a repository, downloaded whole or in parts, and clear errors.

The only package that imports huggingface_hub, and only inside functions. We download whole files ourselves, over plain
HTTP: huggingface_hub 2.4 loses the downloaded part of a file when its process ends, but a job that was killed should
continue from there.

Source: the Hub's API and cache layout, https://huggingface.co/docs/hub/api and
https://huggingface.co/docs/huggingface_hub/guides/manage-cache.
"""

from labelrank.hub.files import cached_path, download, download_all, download_to, remove_damaged
from labelrank.hub.names import DEFAULT_REVISION, check_repo_id, repo_of_address, repo_url
from labelrank.hub.push import Account, Target, check_target, commit, create, who, writer
from labelrank.hub.ranges import RangeFile, open_range
from labelrank.hub.repo import (
    Found,
    HubFile,
    PullRequest,
    Repo,
    find_in_pull_requests,
    look,
    read_card,
    resolve,
    search,
)
from labelrank.hub.waiting import telling

__all__ = [
    "DEFAULT_REVISION",
    "Account",
    "Found",
    "HubFile",
    "PullRequest",
    "RangeFile",
    "Repo",
    "Target",
    "cached_path",
    "check_repo_id",
    "check_target",
    "commit",
    "create",
    "download",
    "download_all",
    "download_to",
    "find_in_pull_requests",
    "look",
    "open_range",
    "read_card",
    "remove_damaged",
    "repo_of_address",
    "repo_url",
    "resolve",
    "search",
    "telling",
    "who",
    "writer",
]
