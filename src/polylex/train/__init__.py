"""Training: stage 1 "align" and stage 2 "distill" over one loop. Needs the extra `polylex[train]`.

align.run(AlignConfig(model="start", teacher="teacher", train_files=("pairs.jsonl",), output_dir="run"))
"""
