"""The estimator: any table of images in, a fitted model out, the bits of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.spark import tables
from tests.spark_masters import EngineProcess

import sixfold
from sixfold.core.errors import UserError

pytestmark = pytest.mark.spark


def fit_repartitioned(engine: Any, out: str) -> list[tuple[str, str, int]]:
    from pyspark.sql import functions

    table = tables.encoded(tables.session_of(engine))
    found = []
    for number, df in enumerate((table, table.orderBy(functions.rand(3)).repartition(64))):
        summary = tables.classifier(out=f"{out}/run{number}").fit(df).summary
        found.append((summary.weights_sha256, summary.data, summary.decoded))
    return found


@pytest.mark.full
def test_the_bits_are_those_of_the_command_line_however_rows_are_partitioned(
    spark_any: EngineProcess, tmp_path: Path
) -> None:
    first, second = spark_any.call(fit_repartitioned, str(tmp_path))
    assert first[:2] == second[:2]
    assert second[2] == 0  # the second fit has decoded nothing
    config = sixfold.configure(
        data=first[1],
        test_split=0.0,
        model="slide",
        batch_size=20,
        steps=6,
        lr=0.005,
        evaluate_every=0.0,
        engine="inline",
        workers=1,
        out=str(tmp_path / "same"),
    )
    assert sixfold.train(config)["weights_sha256"] == first[0]


def search(engine: Any, folder: str) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIXFOLD_CACHE", f"{folder}/cache")  # where nothing has been decoded before
        return searched(engine, folder)


def searched(engine: Any, folder: str) -> dict[str, Any]:
    from pyspark.ml.evaluation import MulticlassClassificationEvaluator
    from pyspark.ml.tuning import CrossValidator, ParamGridBuilder

    table = tables.encoded(tables.session_of(engine), rows=90, channels=1).drop("id")
    fits: list[Any] = []

    network = tables.classifier(steps=3, out=f"{folder}/run-*")
    fit = type(network)._train

    def noted(self: Any, dataset: Any, prepare: Any) -> Any:
        model = fit(self, dataset, prepare)
        fits.append((self.getOrDefault("lr"), dataset.toPandas(), model.summary.fields))
        return model

    grid = ParamGridBuilder().addGrid(network.getParam("lr"), [0.0, 0.02]).build()
    judge = MulticlassClassificationEvaluator(metricName="accuracy")
    validator = CrossValidator(
        estimator=network, estimatorParamMaps=grid, evaluator=judge, numFolds=3, seed=1
    )
    type(network)._train = noted
    try:
        validator.fit(table)
    finally:
        type(network)._train = fit
    return {"fits": fits}


@pytest.mark.full
def test_a_search_decodes_each_image_once_and_each_fold_is_its_own_table(
    spark_any: EngineProcess, tmp_path: Path
) -> None:
    fits = spark_any.call(search, str(tmp_path))["fits"]
    assert len(fits) == 3 * 2 + 1
    by_data = {fields["data"]: fields["decoded"] for _, _, fields in fits}
    assert len(by_data) == 4  # three folds, and all rows
    assert sum(by_data.values()) == 90
    assert by_data[fits[-1][2]["data"]] == 0
    for number, (lr, rows, fields) in enumerate(fits[1:3]):
        rows.attrs = {}  # of Connect, no JSON
        rows.drop(columns="__cv_rand", errors="ignore").to_parquet(tmp_path / f"{number}.parquet")
        config = sixfold.configure(
            data=f"parquet:{tmp_path}/{number}.parquet",
            test_split=0.0,
            model="slide",
            batch_size=20,
            steps=3,
            lr=lr,
            evaluate_every=0.0,
            engine="inline",
            workers=1,
            out=str(tmp_path / f"same{number}"),
        )
        assert sixfold.train(config)["weights_sha256"] == fields["weights_sha256"]


def fit_of_parquet(engine: Any, folder: str) -> str:
    session = tables.session_of(engine)
    table = tables.encoded(session).drop("id")
    table.repartition(3).write.parquet(f"{folder}/table")
    model = tables.classifier(out=f"{folder}/fitted").fit(session.read.parquet(f"{folder}/table"))
    return str(model.summary.weights_sha256)


@pytest.mark.full
def test_a_table_in_files_gives_the_bits_of_the_command_line(
    spark_local: EngineProcess, tmp_path: Path
) -> None:
    found = spark_local.call(fit_of_parquet, str(tmp_path))
    config = sixfold.configure(
        data=f"parquet:{tmp_path}/table",
        test_split=0.0,
        model="slide",
        batch_size=20,
        steps=6,
        lr=0.005,
        evaluate_every=0.0,
        engine="inline",
        workers=1,
        out=str(tmp_path / "same"),
    )
    assert sixfold.train(config)["weights_sha256"] == found


def fit_weights_and_numbers(engine: Any, out: str) -> dict[str, Any]:
    from pyspark.ml.evaluation import RegressionEvaluator

    from sixfold.spark import SixfoldRegressionModel, SixfoldRegressor

    table = tables.encoded(tables.session_of(engine)).selectExpr(
        "*", "cast(label = 0 as double) as w", "1.0D as one", "label * 2.5 - 1 as y"
    )
    told: dict[str, Any] = {}
    for name, column in (("plain", ""), ("one", "one"), ("some", "w")):
        params = {"weightCol": column} if column else {}
        model = tables.classifier(out=f"{out}/{name}", steps=20, **params).fit(table)
        told[name] = model.summary.weights_sha256
        told[f"{name} zeros"] = model.transform(table).where("prediction = 0").count()
    numbers = SixfoldRegressor(
        model="slide", labelCol="y", batchSize=20, steps=200, lr=0.002, evaluateEvery=0.0,
        numWorkers=1, out=f"{out}/numbers",
    )  # fmt: skip
    fitted = numbers.fit(table)
    judge = RegressionEvaluator(labelCol="y", metricName="rmse")
    told["rmse"] = judge.evaluate(fitted.transform(table))
    fitted.write().overwrite().save(f"{out}/saved")
    again = SixfoldRegressionModel.load(f"{out}/saved")
    told["again"] = judge.evaluate(again.transform(table))
    told["columns"] = again.transform(table).columns
    return told


@pytest.mark.full
def test_weights_count_and_numbers_are_learned(spark_local: EngineProcess, tmp_path: Path) -> None:
    told = spark_local.call(fit_weights_and_numbers, str(tmp_path))
    assert told["plain"] != told["some"]
    assert told["some zeros"] == tables.ROWS  # no other class counts
    assert told["plain zeros"] < tables.ROWS
    assert told["rmse"] == told["again"] < 1.5  # the standard deviation of y is 2
    assert told["columns"][-1] == "prediction"


def fit_forms(engine: Any, folder: str) -> dict[str, str]:
    from pyspark.ml.functions import array_to_vector
    from pyspark.sql import functions

    session = tables.session_of(engine)
    images = tables.pixels()
    rows: dict[str, list[Any]] = {"array": [], "flat": [], "path": [], "image": []}
    for row, image in enumerate(images):
        label = row % tables.CLASSES
        path = Path(folder, f"{row:03d}.png")
        path.write_bytes(tables.png(image))
        rows["path"].append((str(path), label))
        rows["array"].append((image.tolist(), label))
        rows["flat"].append(([float(v) for v in image.ravel()], label))
        bgr = np.moveaxis(image, 0, 2)[..., ::-1].tobytes()
        rows["image"].append((("", 8, 8, 3, 16, bytearray(bgr)), label))
    kinds = {"array": "array<array<array<int>>>", "flat": "array<double>", "path": "string"}
    kinds["image"] = "struct<origin:string,height:int,width:int,nChannels:int,mode:int,data:binary>"
    found = {"binary": tables.encoded(session)}
    for form, kind in kinds.items():
        found[form] = session.createDataFrame(rows[form], f"image {kind}, label int")
    found["vector"] = found["flat"].withColumn("image", array_to_vector(functions.col("image")))
    hashes = {}
    for form, df in found.items():
        model = tables.classifier(out=f"{folder}/run-{form}").fit(df)
        scored = model.transform(df)
        assert scored.where("prediction is null").count() == 0, form
        nothing = df.limit(2).withColumn("image", functions.expr("if(label < 9, null, image)"))
        kept = model.setHandleInvalid("keep").transform(nothing)
        assert kept.where("prediction is null").count() == 2, form
        hashes[form] = model.summary.weights_sha256
    return hashes


@pytest.mark.full
def test_every_form_of_an_image_gives_the_same_network(
    spark_any: EngineProcess, tmp_path: Path
) -> None:
    hashes = spark_any.call(fit_forms, str(tmp_path))
    assert set(hashes) == {"binary", "array", "flat", "path", "image", "vector"}
    assert len(set(hashes.values())) == 1, hashes


def fit_odd_rows(engine: Any, out: str) -> dict[str, Any]:
    from pyspark.sql import functions

    session = tables.session_of(engine)
    good = tables.encoded(session).withColumn(
        "label", functions.concat(functions.lit("class "), functions.col("label"))
    )
    odd = session.createDataFrame(
        [
            (bytearray(b"no picture"), "class 0", 100),
            (None, "class 1", 101),
            (bytearray(tables.png(tables.pixels()[0])), None, 102),
        ],
        good.schema,
    )
    table = good.union(odd)
    told: dict[str, Any] = {}
    try:
        tables.classifier(out=f"{out}/refused").fit(table)
    except UserError as error:
        told["problems"] = list(error.problems)
    model = tables.classifier(out=f"{out}/skipped", handleInvalid="skip").fit(table)
    told["rows"], told["skipped"] = model.summary.rows, model.summary.skipped
    told["classes"] = model.classes
    told["same"] = (
        model.summary.weights_sha256
        == tables.classifier(out=f"{out}/good").fit(good).summary.weights_sha256
    )
    model.setHandleInvalid("keep").setErrorCol("why").setPredictedLabelCol("name")
    rows = model.transform(table).orderBy("id").collect()
    told["kept"] = [(row["prediction"], row["name"], row["why"]) for row in rows[-3:]]
    told["taken"] = []
    for error_column, column in (("Image", "id"), ("prediction", "prediction")):
        try:
            model.copy().setErrorCol(error_column).setPredictionCol(column).transform(table)
        except UserError as error:
            told["taken"] += error.problems
    told["skipping"] = model.copy().setHandleInvalid("skip").transform(table).count()
    try:
        model.copy().setHandleInvalid("error").transform(table).collect()
    except Exception as error:
        told["raised"] = str(error)
    return told


@pytest.mark.full
def test_rows_that_cannot_be_used_are_refused_or_counted(
    spark_any: EngineProcess, tmp_path: Path
) -> None:
    told = spark_any.call(fit_odd_rows, str(tmp_path))
    assert any("1 of 63 rows have no label" in line for line in told["problems"])
    assert any("2 of 63 rows cannot be used" in line for line in told["problems"])
    assert (told["rows"], told["skipped"]) == (63, 3)
    assert told["classes"] == ["class 0", "class 1", "class 2"]
    assert told["same"]
    assert [kept[0] is None for kept in told["kept"]] == [True, True, False]
    assert [bool(kept[2]) for kept in told["kept"]] == [True, True, False]
    assert told["kept"][2][1].startswith("class ")
    assert [line.partition(": ")[0] for line in told["taken"]] == [
        "errorCol",
        "predictionCol",
        "errorCol and predictionCol are both 'prediction'",
    ]
    assert told["skipping"] == 61
    assert "has an image that cannot be used" in told["raised"]


def fit_in_pipelines(engine: Any, folder: str) -> dict[str, Any]:
    from pyspark.ml import Pipeline, PipelineModel
    from pyspark.ml.evaluation import MulticlassClassificationEvaluator
    from pyspark.ml.feature import StringIndexer
    from pyspark.ml.tuning import CrossValidator, ParamGridBuilder, TrainValidationSplit
    from pyspark.sql import functions

    session = tables.session_of(engine)
    table = tables.encoded(session).withColumn(
        "word",
        functions.element_at(
            functions.array(*map(functions.lit, "cab")), functions.col("label") + 1
        ),
    )
    network = tables.classifier(labelCol="index", steps=30, out=f"{folder}/run")
    pipeline = Pipeline(stages=[StringIndexer(inputCol="word", outputCol="index"), network])
    fitted = pipeline.fit(table)
    judge = MulticlassClassificationEvaluator(labelCol="index", metricName="accuracy")
    told: dict[str, Any] = {"accuracy": judge.evaluate(fitted.transform(table))}
    told["classes"] = fitted.stages[-1].classes
    fitted.write().overwrite().save(f"{folder}/pipeline")
    again = PipelineModel.load(f"{folder}/pipeline")
    told["loaded"] = judge.evaluate(again.transform(table))
    told["weights"] = Path(folder, "pipeline", "stages").is_dir() and sorted(
        path.name for path in Path(folder, "pipeline", "stages").rglob("model.safetensors")
    )
    network = tables.classifier(steps=4)
    judge = MulticlassClassificationEvaluator(metricName="accuracy")
    grid = ParamGridBuilder().addGrid(network.getParam("lr"), [0.0, 0.02]).build()
    crossed = CrossValidator(
        estimator=network, estimatorParamMaps=grid, evaluator=judge, numFolds=2, seed=1
    ).fit(table)
    told["crossed"] = list(crossed.avgMetrics)
    split = TrainValidationSplit(
        estimator=network, estimatorParamMaps=grid, evaluator=judge, seed=1
    ).fit(table)
    told["split"] = len(split.validationMetrics)
    return told


@pytest.mark.full
def test_it_works_in_pipelines_and_searches(
    spark_local: EngineProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = spark_local.call(fit_in_pipelines, str(tmp_path))
    assert told["accuracy"] == told["loaded"] > 0.8
    assert sorted(told["classes"]) == ["a", "b", "c"]
    assert told["weights"] == ["model.safetensors"]
    assert len(told["crossed"]) == told["split"] == 2


def fit_with_validation(engine: Any, out: str) -> dict[str, Any]:
    table = tables.encoded(tables.session_of(engine)).selectExpr(
        "*", "id % 5 = 0 as held", "current_timestamp() as at"
    )
    model = tables.classifier(
        out=out, validationIndicatorCol="held", epochs=2.0, steps=None, evaluateEvery=1.0
    ).fit(table)
    return model.summary.fields


def test_a_validation_column_sets_rows_aside(spark_local: EngineProcess, tmp_path: Path) -> None:
    fields = spark_local.call(fit_with_validation, str(tmp_path / "run"))
    assert "validation_accuracy" in fields
    assert "test_accuracy" not in fields
    assert fields["steps"] == 2 * 3  # 48 images in batches of 20
    assert any("eval_accuracy" in line for line in fields["history"])


def fit_that_stops(engine: Any, out: str) -> dict[str, Any]:
    table = tables.encoded(tables.session_of(engine)).selectExpr("*", "id % 5 = 0 as held")
    model = tables.classifier(
        out=out, validationIndicatorCol="held", epochs=9.0, steps=None, evaluateEvery=1.0, lr=0.0,
        earlyStopping="loss:2",
    ).fit(table)  # fmt: skip
    return model.summary.fields


@pytest.mark.full
def test_early_stopping_ends_a_fit(spark_local: EngineProcess, tmp_path: Path) -> None:
    fields = spark_local.call(fit_that_stops, str(tmp_path / "run"))
    assert fields["steps"] == 3 * 3  # an epoch of three steps, and two without an improvement
    assert "early" in fields["stopped_by"]


def fit_cancelled(engine: Any, folder: str) -> dict[str, Any]:
    import threading
    import time

    session = tables.session_of(engine)
    table, run = tables.encoded(session), Path(folder, "run")
    on_connect = hasattr(engine, "connected")
    told: dict[str, Any] = {"failed": []}
    network = tables.classifier(out=str(run), steps=400)

    def cell() -> None:
        if on_connect:
            session.addTag("cell")
        else:
            session.sparkContext.setJobGroup("cell", "of a notebook")
        try:
            network.fit(table)
        except Exception as error:
            told["failed"].append((type(error).__name__, str(error)))

    thread = threading.Thread(target=cell)
    thread.start()
    while thread.is_alive() and not (run / "metrics.jsonl").is_file():
        time.sleep(0.02)
    if on_connect:
        session.interruptTag("cell")
    else:
        session.sparkContext.cancelJobGroup("cell")
    thread.join()
    told["threads"] = [t.name for t in threading.enumerate() if t.name == "sixfold-spark-job"]
    try:
        network.fit(table)
    except UserError as error:
        told["again"] = list(error.problems)
    told["resumed"] = network.copy().setResume(True).fit(table).summary.weights_sha256
    told["whole"] = network.setOut(f"{folder}/whole").fit(table).summary.weights_sha256
    return told


@pytest.mark.full
def test_who_cancels_the_callers_jobs_ends_a_fit_that_can_be_resumed(
    spark_any: EngineProcess, tmp_path: Path
) -> None:
    told = spark_any.call(fit_cancelled, str(tmp_path))
    ((kind, line),) = told["failed"]
    assert kind == "RunError"
    assert line.startswith("Spark could not run the ranks: ")
    assert "\n" not in line
    assert told["threads"] == []
    assert "was not finished: resume it with resume, or have one made" in told["again"][0]
    assert told["resumed"] == told["whole"]


def test_wrong_params_are_told_together_in_sparks_words() -> None:
    pytest.importorskip("pyspark")
    from sixfold.spark import SixfoldClassifier

    with pytest.raises(UserError) as caught:
        SixfoldClassifier(epoch=3, batchSize="many")
    assert [line.partition(":")[0] for line in caught.value.problems] == [
        "SixfoldClassifier has no Param 'epoch'",
        "batchSize='many'",
    ]
    assert "did you mean epochs" in caught.value.problems[0]
    counted: Any = SixfoldClassifier(batchSize=np.int64(32), lr=np.float32(0.5))
    assert (counted.getBatchSize(), counted.getLr()) == (32, 0.5)
    listed: Any = SixfoldClassifier(augment=["crop:4", "flip"])
    assert listed.getAugment() == "crop:4,flip"


def refuse(engine: Any) -> list[list[str]]:
    from sixfold.spark.table import image_columns

    table = tables.encoded(tables.session_of(engine))
    table = table.selectExpr(
        "*", "array(label) as several", "true as held", "label as `a.b`", "image as `c.d`",
        "current_date() as day", "false as never", "0.0D as nothing",
        "cast(label + 0.5 as decimal(9, 1)) as half", "'1' as word",
    )  # fmt: skip
    stream = table.sparkSession.readStream.format("rate").load()
    found = []
    odd: dict[str, Any]
    for df, odd in (
        (stream, {}),
        (table.toPandas(), {}),
        (table, {"labelCol": "day"}),
        (table, {"labelCol": "half"}),
        (table, {"weightCol": "word"}),
        (table, {"weightCol": "held"}),
        (table, {"weightCol": "nothing", "validationIndicatorCol": "never"}),
        (table.select("*", "image"), {"imageCol": "image"}),
        (table.withColumnRenamed("image", "a`b"), {"imageCol": "a`b"}),
    ):
        try:
            tables.classifier(**odd).fit(df)
        except UserError as error:
            found.append(list(error.problems))
    try:
        image_columns(stream.selectExpr("array(0.5D, 0.25D) as image"), None)
    except UserError as error:
        found.append(list(error.problems))
    for params in (
        {"batchSize": 0, "momentum": 2.0, "handleInvalid": "keep"},
        {"imageCol": "imagge"},
        {"labelCol": "labels"},
        {"labelCol": "id", "validationIndicatorCol": "nowhere"},
        {"labelCol": "id", "validationIndicatorCol": "label"},
        {"labelCol": "label", "validationIndicatorCol": "held"},
        {"labelCol": "several"},
        {"labelCol": "a.b", "imageCol": "image"},
        {"imageCol": "c.d"},
        dict.fromkeys(("imageCol", "labelCol", "weightCol", "validationIndicatorCol"), "labell"),
    ):
        try:
            tables.classifier(**params).fit(table)
        except UserError as error:
            found.append(list(error.problems))
    return found


def test_what_does_not_fit_is_refused_before_anything_is_written(
    spark_local: EngineProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    *tables_, wrong, image, label, indicator, number, held, several, dotted, dots, missing = (
        spark_local.call(refuse)
    )
    assert {line.split(" ")[0] for line in missing} == {
        "imageCol", "labelCol", "weightCol", "validationIndicatorCol",
    }  # fmt: skip
    told = [line for lines in tables_ for line in lines]
    assert "this DataFrame is a stream" in told[0]
    assert told[1].endswith("not pandas.DataFrame") or "pandas.core" in told[1]
    assert told[2].startswith("labelCol 'day' is date: expected whole numbers, text or booleans")
    assert told[3].startswith("labelCol 'half' holds ")
    assert told[4:] == [
        f"weightCol {name!r} is {kind}: expected numbers"
        for name, kind in (("word", "string"), ("held", "boolean"))
    ] + [
        "validationIndicatorCol 'never' is true in no row: leave it out, or mark rows to "
        "validate on",
        "weightCol 'nothing' is 0 in all rows to learn from",
        "the DataFrame has 2 columns 'image': keep one of them",
        "column 'a`b': Spark takes backticks for quotes: select it under another name first",
        "column 'image' of a stream holds fractions, and whether they are from 0 to 1 or to 255 "
        "cannot be told from it: give whole numbers, or a model that was trained on fractions",
    ]
    assert {line.split(" ")[0] for line in wrong} == {"batchSize", "momentum", "handleInvalid"}
    assert "did you mean 'image'?" in image[0]
    assert "labelCol 'labels': the DataFrame has no such column" in label[0]
    assert "validationIndicatorCol 'nowhere'" in indicator[0]
    assert "validationIndicatorCol 'label' is integer: expected a boolean" in number[0]
    assert held == ["all rows are for validation: there is nothing to learn from"]
    assert "labelCol 'several' is array: expected whole numbers" in several[0]
    for (line,), name in zip((dotted, dots), ("a.b", "c.d"), strict=True):
        assert f"column '{name}': Spark takes the dot for a field of a struct" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.full
def test_over_connect_it_is_refused_in_the_same_words(
    spark_local: EngineProcess, spark_connect: EngineProcess
) -> None:
    classic, connect = spark_local.call(refuse), spark_connect.call(refuse)
    assert len(classic) == len(connect) == 19
    assert connect == classic


def save_and_score(engine: Any, folder: str) -> dict[str, Any]:
    from sixfold.spark import SixfoldClassificationModel, SixfoldClassifier, predict_udf

    session = tables.session_of(engine)
    table = tables.encoded(session)
    estimator = tables.classifier(out=f"{folder}/run")
    estimator.write().overwrite().save(f"{folder}/estimator")
    assert SixfoldClassifier.load(f"{folder}/estimator").getBatchSize() == 20
    model = estimator.fit(table)
    model.write().overwrite().save(f"{folder}/model")
    again = SixfoldClassificationModel.load(f"{folder}/model")
    of_run = SixfoldClassificationModel.of(f"{folder}/run")
    scored = [
        [tuple(row["probability"]) for row in each.transform(table).orderBy("id").collect()]
        for each in (model, again, of_run)
    ]
    session.udf.register("score", predict_udf(f"{folder}/run"))
    table.createOrReplaceTempView("pictures")
    by_sql = session.sql("select id, score(image).probability as p from pictures order by id")
    views = "flip,shift:1"
    averaged = model.copy().setTta(views).transform(table).orderBy("id").collect()
    session.udf.register("averaged", predict_udf(f"{folder}/run", tta=views))
    averaged_sql = session.sql("select averaged(image).probability as p from pictures order by id")
    try:
        model.copy().setTta("flop").transform(table)
    except UserError as error:
        wrong = str(error)
    return {
        "averaged": [tuple(row["probability"]) for row in averaged],
        "averaged_sql": [tuple(row["p"]) for row in averaged_sql.collect()],
        "wrong": wrong,
        "scored": scored,
        "sql": [tuple(row["p"]) for row in by_sql.collect()],
        "same_summary": again.summary.fields == model.summary.fields,
    }


@pytest.mark.full
def test_a_saved_model_a_run_and_sql_score_alike(spark_any: EngineProcess, tmp_path: Path) -> None:
    told = spark_any.call(save_and_score, str(tmp_path))
    first, *others = told["scored"]
    assert len(first) == tables.ROWS
    assert all(other == first for other in others)
    np.testing.assert_allclose(told["sql"], first)
    assert told["same_summary"]
    from safetensors import safe_open

    with safe_open(tmp_path / "model" / "model.safetensors", "pt") as file:
        assert "sixfold" in file.metadata()
    classifier = sixfold.load(tmp_path / "model" / "model.safetensors")
    import torch

    raw = classifier(torch.from_numpy(tables.pixels()))
    np.testing.assert_allclose(raw.softmax(1).detach().numpy(), first, atol=1e-5)
    raw = sixfold.load(tmp_path / "run", tta="flip,shift:1")(torch.from_numpy(tables.pixels()))
    np.testing.assert_allclose(raw.softmax(1).detach().numpy(), told["averaged"], atol=1e-5)
    np.testing.assert_allclose(told["averaged_sql"], told["averaged"])
    assert told["wrong"].startswith("tta flop: ")
