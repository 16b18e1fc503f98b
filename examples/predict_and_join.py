"""Predict a table of images with a finished run, and join the predictions to the table."""

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from sklearn.datasets import load_digits

import sixfold


def write_table(path: str) -> None:
    """A table of customers' digits, as PNG files in a column."""
    digits = load_digits()
    rows = []
    for number, pixels in enumerate(digits.images[:50]):
        file = io.BytesIO()
        Image.fromarray((pixels * 15.9).astype("uint8")).save(file, "PNG")
        rows.append({"customer": f"c{number:03d}", "image": file.getvalue()})
    pq.write_table(pa.Table.from_pylist(rows), path)


def main() -> None:
    """Train, predict, join."""
    run = sixfold.train("lenet300", "digits", epochs=5, lr=0.1, engine="inline", out="runs/join")
    Path("tables").mkdir(exist_ok=True)
    write_table("tables/customers.parquet")
    table = "parquet:tables/customers.parquet"
    sixfold.predict(run, table, "scores.parquet", id_column="customer", engine="inline")
    scores = pq.read_table("scores.parquet")
    joined = pq.read_table("tables/customers.parquet").join(scores, "customer")
    print(joined.select(["customer", "label"]).slice(0, 5).to_pylist())


if __name__ == "__main__":
    main()
