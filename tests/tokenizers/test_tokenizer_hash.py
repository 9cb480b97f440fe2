"""One number for one tokenizer: not for one file."""

import json
import shutil

import pytest

from llama_jax.tokenizers import load_tokenizer, tokenizer_hash
from llama_jax.tokenizers.tokenizer_config import tokenizer_config_files


def hash_of(path):
    return tokenizer_hash(load_tokenizer(path))


def test_it_does_not_depend_on_where_the_files_lie(smollm_folder, rank_file, tmp_path_factory):
    for source in (smollm_folder / "tokenizer.json", rank_file):
        copy = tmp_path_factory.mktemp("elsewhere") / source.name
        shutil.copy(source, copy)
        assert hash_of(copy) == hash_of(source) and len(hash_of(copy)) == 64


def test_it_does_not_depend_on_how_tokenizer_json_is_written(smollm_folder):
    import tokenizers

    path = smollm_folder / "tokenizer.json"
    before = hash_of(smollm_folder)
    fields = json.loads(path.read_text())
    fields["model"]["merges"] = [
        merge if isinstance(merge, str) else " ".join(merge) for merge in fields["model"]["merges"]
    ]
    fields["model"].pop("ignore_merges", None)
    fields["truncation"] = None
    path.write_text(json.dumps(dict(reversed(fields.items())), indent=3))
    assert hash_of(smollm_folder) == before
    path.write_text(tokenizers.Tokenizer.from_file(str(path)).to_str(pretty=True))
    assert hash_of(smollm_folder) == before


def test_stop_ids_and_chat_template_are_not_part_of_it(smollm_folder):
    before = hash_of(smollm_folder)
    (smollm_folder / "generation_config.json").write_text('{"eos_token_id": [1, 2]}')
    config = json.loads((smollm_folder / "tokenizer_config.json").read_text())
    (smollm_folder / "tokenizer_config.json").write_text(
        json.dumps({**config, "chat_template": ""})
    )
    assert hash_of(smollm_folder) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: fields["model"]["merges"].reverse(),
        lambda fields: fields["model"]["merges"].pop(),
        lambda fields: fields["model"].update(ignore_merges=True),
        lambda fields: fields["pre_tokenizer"]["pretokenizers"].pop(0),
        lambda fields: fields["added_tokens"][0].update(special=False),
        lambda fields: fields.update(normalizer={"type": "NFC"}),
        lambda fields: swap(fields["model"]["vocab"], "a", "b"),
    ],
)
def test_every_change_that_changes_ids_changes_it(smollm_folder, change):
    path = smollm_folder / "tokenizer.json"
    before = hash_of(smollm_folder)
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields))
    assert hash_of(smollm_folder) != before


def swap(vocabulary, one, other):
    vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]


def test_a_token_made_special_changes_it(smollm_folder):
    before = hash_of(smollm_folder)
    files = tokenizer_config_files(
        {"bos_token": "<|im_start|>", "eos_token": "the"},
        tokenizer_class="PreTrainedTokenizerFast",
        add_bos=False,
        model_max_length=None,
        chat_template=None,
    )
    for name, content in files.items():
        (smollm_folder / name).write_bytes(content)
    assert hash_of(smollm_folder) != before


def test_a_changed_rank_changes_it(rank_file, rank_lines, tmp_path):
    lines = [*rank_lines]
    (left, _), (right, _) = lines[300].split(), lines[301].split()
    lines[300:302] = [right + b" 300\n", left + b" 301\n"]
    (tmp_path / "tokenizer.model").write_bytes(b"".join(lines))
    assert hash_of(tmp_path) != hash_of(rank_file)


def test_a_changed_sentencepiece_model_changes_it_but_not_the_trainers_notes(
    sentencepiece_model, tmp_path
):
    from sentencepiece import sentencepiece_model_pb2 as protobuf

    def changed(change):
        model = protobuf.ModelProto.FromString(sentencepiece_model.read_bytes())
        change(model)
        (tmp_path / "tokenizer.model").write_bytes(model.SerializeToString())
        return hash_of(tmp_path)

    before = hash_of(sentencepiece_model)
    assert changed(lambda model: model.trainer_spec.input.append("elsewhere.txt")) == before
    assert changed(lambda model: setattr(model.pieces[500], "score", -1.0)) != before
    assert (
        changed(lambda model: setattr(model.normalizer_spec, "add_dummy_prefix", False)) != before
    )
