"""Sites, users, links and demand from CSV files: what is read, and what is refused in one line."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finecast.compare.runs.suite import instance_hash
from finecast.problem.files import FormatError
from finecast.problem.instance import read_instance, write_instance
from finecast.problem.scenario import read_scenario
from finecast.problem.sites import read_sites
from finecast.problem.user_cells import UserCells, shared_out

FILES = {
    "sites.csv": (
        "name,latitude,longitude,storage_gb,power_w,antennas\n"
        "A,50.9400,6.9500,0.5,1,4\n"
        "B,50.9430,6.9500,1.5,2,4\n"
        "C,50.9400,6.9560,0,4,4\n"
    ),
    "users.csv": "site,users\nC,2\nA,3\nB,0\n",
    "links.csv": "from,to,gbps\nA,B,10\nB,A,2\nA,C,1\ncloud,B,0.7\n",
    "demand.csv": "site,model,weight\n*,0,3\n*,1,1\nC,2,5\n",
}
TEXT = """
slots = 2
library.synthetic = { models = 3, blocks = 8 }
nodes.file = "sites.csv"
users.file = "users.csv"
links.file = "links.csv"
links.cloud_gbps = 0.25
demand.file = "demand.csv"
"""


@pytest.fixture
def city(tmp_path):
    """Return a function that writes the files, some of them changed, and reads the scenario."""

    def make(text=TEXT, **changed):
        for name, content in FILES.items():
            (tmp_path / name).write_text(changed.get(name.removesuffix(".csv"), content))
        (tmp_path / "city.toml").write_text(text)
        return read_scenario(tmp_path / "city.toml")

    return make


def test_network_of_files(city):
    """Storage, power, antennas, names and links are those of the tables, converted once."""
    made = city().generate(0)
    network = made.network
    assert network.node_names == ("A", "B", "C")
    assert network.storage.tolist() == [500_000_000, 1_500_000_000, 0]
    assert network.power.tolist() == [1.0, 2.0, 4.0]
    assert made.antennas == 4
    # A row holds both ways unless the other way has a row; no row, no link.
    assert (network.backhaul_rate / 1e9).tolist() == [[0, 10, 1], [2, 0, 0], [1, 0, 0]]
    assert (network.cloud_rate / 1e9).tolist() == [0.25, 0.7, 0.25]


def test_keys_beside_a_file_win(city):
    """A key of the scenario, from the command line too, comes before the column of the file."""
    scenario = city().with_({"nodes.storage_gb": [1.0, 2.0, 3.0], "nodes.power_dbm": 30.0})
    network = scenario.generate(0).network
    assert network.storage.tolist() == [10**9, 2 * 10**9, 3 * 10**9]
    assert network.power == pytest.approx([1.0] * 3)
    assert city().with_({"nodes.power_w": 7.0}).generate(0).network.power.tolist() == [7.0] * 3
    assert city().with_({"nodes.antennas": 2}).generate(0).antennas == 2
    assert city().node_count == 3


def haversine(one, other, radius=6_371_008.8):
    """Return the distance along the sphere, m: an oracle that projects nothing."""
    (lat1, lon1), (lat2, lon2) = np.radians(one), np.radians(other)
    h = math.sin((lat2 - lat1) / 2) ** 2
    h += math.cos(lat1) * math.cos(lat2) * math.sin((lon2 - lon1) / 2) ** 2
    return 2 * radius * math.asin(math.sqrt(h))


@pytest.mark.parametrize(("lat", "lon"), [(0.0, 10.0), (51.0, 7.0), (-60.0, 179.98), (60, -180.0)])
def test_projection_keeps_distances_of_a_city(tmp_path, lat, lon):
    """Within 10 km distances are those on the sphere to 0.3 %, across the 180th meridian too."""
    rng = np.random.default_rng(0)
    spread = 0.06 * np.array([1.0, 1.0 / math.cos(math.radians(lat))])
    places = np.array([lat, lon]) + rng.uniform(-1, 1, (6, 2)) * spread
    places[:, 1] = (places[:, 1] + 180) % 360 - 180
    rows = "".join(f"s{n},{a!r},{b!r}\n" for n, (a, b) in enumerate(places.tolist()))
    (tmp_path / "s.csv").write_text("name,latitude,longitude\n" + rows)
    position = read_sites(tmp_path / "s.csv").position
    for n in range(6):
        for m in range(n):
            flat = float(np.linalg.norm(position[n] - position[m]))
            assert flat == pytest.approx(haversine(places[n], places[m]), rel=3e-3)


def test_north_is_up(tmp_path):
    """x grows to the east and y to the north; a kilometre north is 1 / 111.19 degree."""
    (tmp_path / "s.csv").write_text("name,latitude,longitude\nA,50,7\nB,50.01,7\nC,50,7.01\n")
    a, b, c = read_sites(tmp_path / "s.csv").position
    assert b - a == pytest.approx([0.0, 1111.95], abs=0.01)
    assert c[0] - a[0] > 700
    assert c[1] == pytest.approx(a[1])


def test_users_stand_in_their_cells(city):
    """Every user is nearest to its site, cells in the order of the file; places keep that."""
    scenario = city()
    home = [2, 2, 0, 0, 0]
    for made in (scenario.generate(0), scenario.generate(0, path=1, places=1)):
        apart = np.linalg.norm(made.user_position[:, None] - made.network.node_position, axis=2)
        assert apart.argmin(axis=1).tolist() == home
        assert apart.min() >= 10.0
        # Demand: the rows of the site, else those of all.
        assert made.demand.preference[1, 0].tolist() == [0, 0, 1]
        assert made.demand.preference[0, 4].tolist() == [0.75, 0.25, 0]
    first, moved = scenario.generate(0), scenario.generate(0, places=1)
    assert not np.array_equal(first.user_position, moved.user_position)


def test_users_of_a_map(city):
    """Weights share out so many users; each stands within the radius of its cell's centre."""
    text = TEXT + "users.count = 8\nusers.cell_radius_m = 30\n"
    rows = "latitude,longitude,weight\n50.9415,6.9530,1\n50.9420,6.9540,3\n50.9410,6.9510,0\n"
    made = city(text, users=rows).generate(0)
    assert made.users == 8
    centre = np.array([50.9415, 6.9530]), np.array([50.9420, 6.9540])
    site = np.array([50.94, 6.95])
    for k, where in enumerate([centre[0]] * 2 + [centre[1]] * 6):
        to_site = np.linalg.norm(made.user_position[k] - made.network.node_position[0])
        assert abs(to_site - haversine(where, site)) < 30.5


@given(st.lists(st.integers(0, 50), min_size=1, max_size=9).filter(any), st.integers(1, 200))
def test_shares_are_fair(amount, users):
    """All users are shared out, each cell gets its share rounded up or down, empty cells none."""
    n = len(amount)
    cells = UserCells("u.csv", np.zeros((n, 2)), np.arange(n), np.array(amount, float), True)
    count = np.bincount(shared_out(cells, users), minlength=n)
    exact = users * np.array(amount) / sum(amount)
    assert count.sum() == users
    assert (np.abs(count - exact) < 1).all()
    assert np.bincount(shared_out(cells, None), minlength=n).tolist() == amount


def test_links_by_distance(city):
    """Two sites have the rate of the first distance that reaches, and none beyond the last."""
    text = TEXT.replace('links.file = "links.csv"', "links.distance_gbps = [[350, 10], [450, 2.5]]")
    # A-B are 333.6 m apart, A-C 420.4 m, B-C 536.7 m.
    rate = city(text).generate(0).network.backhaul_rate / 1e9
    assert rate.tolist() == [[0, 10, 2.5], [10, 0, 0], [2.5, 0, 0]]


def test_names_are_for_people(city, tmp_path):
    """Names survive a file, and do not count where instances are compared."""
    made = city().generate(0)
    write_instance(tmp_path / "i.npz", made)
    assert read_instance(tmp_path / "i.npz").network.node_names == ("A", "B", "C")
    renamed = {name: text.replace("A,", "Z,") for name, text in FILES.items()}
    renamed["links.csv"] = renamed["links.csv"].replace(",A", ",Z")
    other = city(**{name.removesuffix(".csv"): text for name, text in renamed.items()}).generate(0)
    assert other.network.node_names == ("Z", "B", "C")
    assert instance_hash(other) == instance_hash(made)


BY_DISTRICT = "district,model,weight\neast,2,5\n*,0,3\n*,1,1\n"
DISTRICTS = (
    FILES["sites.csv"]
    .replace("antennas\n", "antennas,district\n")
    .replace(",4\n", ",4,west\n")
    .replace("0,4,4,west", "0,4,4,east")
)


def test_demand_by_district(city):
    """Users ask as their district does: that of their nearest site, or of their own row.

    Site C is east, A and B are west; users are listed with two at C first, then three at A.
    """
    made = city(sites=DISTRICTS, demand=BY_DISTRICT).generate(0)
    assert made.demand.preference[0, 0].tolist() == [0, 0, 1]
    assert made.demand.preference[1, 4].tolist() == [0.75, 0.25, 0]
    own = "site,users,district\nC,2,west\nA,3,east\nB,0,far\n"
    for sites in (DISTRICTS, FILES["sites.csv"]):
        made = city(sites=sites, users=own, demand=BY_DISTRICT).generate(0)
        assert made.demand.preference[0, 0].tolist() == [0.75, 0.25, 0]
        assert made.demand.preference[0, 4].tolist() == [0, 0, 1]
    # A district without users may have rows, and users of a map have districts too.
    cells = "latitude,longitude,users,district\n50.9415,6.9530,2,east\n50.9415,6.9510,1,west\n"
    rows = BY_DISTRICT.replace("*", "west")
    made = city(sites=DISTRICTS, users=cells, demand=rows).generate(0)
    assert made.demand.preference[0].tolist() == [[0, 0, 1], [0, 0, 1], [0.75, 0.25, 0]]


def test_districts_are_areas(city):
    """Sites of a district send together where that is asked for; without the column, one line."""
    text = TEXT + 'nodes.areas = "district"\n'
    assert city(text, sites=DISTRICTS).generate(0).areas.tolist() == [0, 0, 1]
    assert city(sites=DISTRICTS).generate(0).areas.tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match=r"nodes\.areas: 'district' needs a file of sites"):
        city(text).generate(0)
    with pytest.raises(ValueError, match="areas must be 'none', 'district'"):
        read_scenario("tiny").with_({"nodes.areas": "districts"})


def test_places_keep_districts(city):
    """Other places of the users of a seed leave what they ask for as it is."""
    scenario = city(sites=DISTRICTS, demand=BY_DISTRICT)
    first, moved = scenario.generate(0), scenario.generate(0, path=1, places=1)
    assert np.array_equal(first.demand.preference, moved.demand.preference)


SITES, USERS = FILES["sites.csv"], FILES["users.csv"]
LINKS, DEMAND = FILES["links.csv"], FILES["demand.csv"]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"sites": SITES.replace("50.9430", "95")}, "line 3, column 'latitude': '95' is not allow"),
        ({"sites": SITES.replace("6.9560", "-191")}, "line 4, column 'longitude': '-191' is not"),
        ({"sites": SITES.replace("6.9560", "nan")}, "line 4, column 'longitude': 'nan' is not a n"),
        ({"sites": SITES.replace("50.9430", "-50.9430")}, "line 3, column 'latitude': the site is"),
        ({"sites": SITES.replace("B,", "A,")}, "line 3, column 'name': 'A' stands in line 2"),
        ({"sites": SITES.replace("B,", "cloud,")}, "line 3, column 'name': 'cloud' is not allowed"),
        ({"sites": SITES.replace("B,", ",")}, "line 3, column 'name': is empty"),
        ({"sites": SITES.replace("1.5,2,4", "1.5,2")}, "line 3: 5 fields, expected 6: name,"),
        ({"sites": SITES.replace("1.5,", "-1.5,")}, "line 3, column 'storage_gb': '-1.5' is not"),
        ({"sites": SITES.replace("50.9430", "50.9400")}, "line 3, column 'latitude': stands where"),
        ({"sites": SITES.replace("power_w", "watts")}, "line 1: unknown column 'watts'"),
        ({"sites": SITES.replace("latitude", "x_m")}, "line 1: give the columns"),
        ({"sites": "name,latitude,longitude\n"}, "has no rows"),
        ({"users": USERS.replace("C,", "D,")}, "line 2, column 'site': site 'D' is unknown"),
        ({"users": USERS.replace("C,", "A,")}, "line 3, column 'site': 'A' stands in line 2"),
        ({"users": USERS.replace("C,2", "C,2.5")}, "line 2, column 'users': '2.5' is not allowed"),
        ({"users": USERS.replace("C,2", "C,-2")}, "line 2, column 'users': '-2' is not allowed"),
        ({"users": "site,users\nA,0\n"}, "column 'users': all are 0"),
        ({"users": "site,weight\nA,1\n"}, "has weights: say how many users with 'users.count'"),
        ({"users": "latitude,longitude,users\n6.95,50.94,1\n"}, "km from the nearest site"),
        ({"links": LINKS.replace("B,A", "B,D")}, "line 3, column 'to': site 'D' is unknown"),
        ({"links": LINKS.replace("B,A", "A,B")}, "line 3, column 'to': this link stands in line 2"),
        ({"links": LINKS.replace("B,A", "B,B")}, "line 3, column 'to': 'B' is where the link beg"),
        ({"links": LINKS.replace("B,A,2", "B,A,-2")}, "line 3, column 'gbps': '-2' is not allowed"),
        ({"links": LINKS.replace("0.7", "0")}, "line 5, column 'gbps': '0' is not allowed"),
        ({"demand": DEMAND.replace("C,2", "C,9")}, "line 4, column 'model': model '9' is unknown"),
        ({"demand": DEMAND.replace("C,2", "E,2")}, "line 4, column 'site': site 'E' is unknown"),
        ({"demand": DEMAND.replace("*,1", "*,0")}, "line 3, column 'model': '0' has a row already"),
        ({"demand": DEMAND.replace("5", "0")}, "column 'weight': none above 0 for site 'C'"),
        ({"demand": "district,model,weight\n*,0,1\n"}, "line 1: column 'district' needs a column"),
        ({"demand": "site,district,model,weight\nA,x,0,1\n"}, "line 1: give either the column 's"),
        (
            {"demand": BY_DISTRICT.replace("east", "eats"), "sites": DISTRICTS},
            "line 2, column 'district': district 'eats' is unknown; did you mean 'east'?",
        ),
        (
            {"demand": BY_DISTRICT.replace("*", "west").replace(",5", ",0"), "sites": DISTRICTS},
            "column 'weight': none above 0 for district 'east'",
        ),
        ({"sites": DISTRICTS.replace("east", "")}, "line 4, column 'district': is empty"),
        ({"sites": DISTRICTS.replace("east", "*")}, "line 4, column 'district': '*' is not allow"),
        ({"users": "site,users,district\nA,1,\n"}, "line 2, column 'district': is empty"),
        ({"demand": DEMAND.replace("*", "A")}, "column 'weight': none above 0 for site 'B'"),
    ],
)
def test_mistakes_are_one_line(city, changed, words):
    """Whatever is wrong is said with the file, its row and its column, before anything is drawn."""
    scenario = city(**changed)
    with pytest.raises(FormatError) as refused:
        scenario.generate(0)
    message = str(refused.value)
    assert f"{next(iter(changed))}.csv: " in message
    assert words in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("nodes.count = 3", "nodes: give either 'file' or 'count'"),
        ("nodes.layout = 'square'", "nodes: give either 'file' or 'layout'"),
        ("links.backhaul_gbps = 1", "links: give either 'file' or 'backhaul_gbps'"),
        ("links.distance_gbps = [[100, 1]]", "links: give either 'file' or 'distance_gbps'"),
        ("demand.zipf = 1", "demand: give either 'file' or 'zipf'"),
    ],
)
def test_a_file_in_place_of_keys(city, line, words):
    """Keys that a file takes the place of are refused beside it."""
    with pytest.raises(FormatError, match=words):
        city(TEXT + line + "\n")


def test_tables_need_names(city):
    """Users and links of sites need a file that names the sites; distances must rise."""
    with pytest.raises(ValueError, match=r"give 'nodes\.file' too"):
        city(TEXT.replace('nodes.file = "sites.csv"', "")).generate(0)
    text = TEXT.replace('links.file = "links.csv"', "links.distance_gbps = [[300, 1], [200, 2]]")
    with pytest.raises(FormatError, match="must rise"):
        city(text)


@pytest.mark.parametrize("key", ["power_dbm", "power_w", "storage_gb"])
def test_a_number_for_each_node(key):
    """Power, like storage, may be given for each node, and must then be as many."""
    tiny = read_scenario("tiny")
    changed = tiny.with_({f"nodes.{key}": [1.0, 2.0]}).generate(0).network
    assert (changed.storage if key == "storage_gb" else changed.power)[1] != pytest.approx(
        (changed.storage if key == "storage_gb" else changed.power)[0]
    )
    with pytest.raises(ValueError, match=f"{key} has 3 entries, count is 2"):
        tiny.with_({f"nodes.{key}": [1.0, 2.0, 3.0]})
