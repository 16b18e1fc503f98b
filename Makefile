# Two commands for a newcomer: `make demo` and `make test`. Everything is set up in .venv.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# Of the tests: what one process shares (a Spark session, a trained network) is made once.
PROCESSES ?= 2
PYTEST := $(BIN)/python -m pytest -n $(PROCESSES) --dist loadgroup --no-loadscope-reorder

.PHONY: demo test test-full docs bench lint format clean

demo: $(READY)
	$(BIN)/sixfold train --data digits --resize 28 --model lenet5 --batch-size 64 --epochs 15 \
	  --lr 0.02 --schedule cosine --out runs/demo --overwrite

test: $(READY)
	$(PYTEST) -m "not full"

test-full: $(READY)
	$(PYTEST) --hypothesis-profile full

docs: $(READY)
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs
	@echo build/docs/index.html

bench: $(READY)
	$(BIN)/python -m benchmarks.bench train --batches 100,2000 --model \
	  slide,lenet5@28:100,resnet20@32:100,vgg16@32:100,resnet18@224:16,resnet50@224:16,mobilenet_v2@224:32,cells@256:16

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "sixfold needs Python 3.11 or newer; set PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[spark,onnx,hf,tune,s3,lab,docs,dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
