"""The table of vendors: each can be enabled by its variables alone, and none takes another's."""

from collections import Counter

import pytest

from services.dispatch import addresses
from services.dispatch.catalog import read_catalog
from services.dispatch.dialects import adapter_for
from services.dispatch.settings import DispatchSettings
from services.dispatch.vendors import VENDORS, Vendor, find, switch_of, variables_of
from services.runtime.settings import load

by_name = pytest.mark.parametrize("vendor", VENDORS, ids=[vendor.name for vendor in VENDORS])


def test_no_variable_has_two_meanings() -> None:
    assert [name for name, times in Counter(each.name for vendor in VENDORS for each in variables_of(vendor)).items() if times > 1] == []


@by_name
def test_an_own_address_is_one_and_is_as_the_paths_need_it(vendor: Vendor) -> None:
    if vendor.base_url:
        assert addresses.problem(vendor.base_url) is None
        assert addresses.normal(vendor.kind, vendor.base_url) == vendor.base_url


@by_name
def test_a_vendors_variables_enable_it_under_each_of_their_names(vendor: Vendor) -> None:
    for key in vendor.key_variables:
        for address in vendor.address_variables:
            environment = {"ENABLE_OLLAMA": "false", "ENABLE_DEMO": "false"} | {
                key: "k",
                address: "http://x.test/own",
                vendor.switch: "true",
            }
            (found,) = read_catalog(load(DispatchSettings, environment), {}, environment).providers
            assert (found.name, found.kind, found.base_url) == (vendor.name, vendor.kind, "http://x.test/own")
            assert [each.secret.reveal() for each in found.keys] == ["k"]
            assert adapter_for(found).authorization("k")


def test_what_runs_here_comes_last() -> None:
    assert [vendor.name for vendor in VENDORS if not vendor.needs_key] == [VENDORS[-1].name]


def test_the_first_variable_that_is_set_counts() -> None:
    assert find({"B": "2,3\n", "A": " ,"}, ("A", "B")) == ("B", "2,3")
    assert find({}, ("A", "B")) is None


@pytest.mark.parametrize(("name", "switch"), [("openai", "ENABLE_OPENAI"), ("my-lab.2", "ENABLE_MY_LAB_2"), ("é", "ENABLE__")])
def test_a_providers_switch_is_named_after_it(name: str, switch: str) -> None:
    assert switch_of(name) == switch
