import subprocess
import sys


def test_opening_data_is_light() -> None:
    code = (
        "import sys, sixfold.data as d; from sixfold.data.config import DataConfig;"
        "heavy = {'torch', 'pandas', 'sklearn', 'pyspark', 'pyarrow', 'PIL', 'fsspec', 'scipy'};"
        "print(sorted(heavy & set(sys.modules)));"
        "d.open_data(d.resolve(DataConfig()));"
        "print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split("\n")[:2] == ["[]", "[]"]
