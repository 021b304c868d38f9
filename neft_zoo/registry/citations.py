"""BibTeX of the papers behind the zoo, by address: an entry names the address only."""

from __future__ import annotations

import re

SELF = """@software{neft_zoo,
  title = {neft-zoo: embedding-noise regularization for fine-tuning},
  author = {{The neft-zoo developers}},
  year = {2026},
}"""

# address: (authors, title, year, venue)
PAPERS: dict[str, tuple[str, str, int, str]] = {
    "https://arxiv.org/abs/2310.05914": (
        "Jain, Neel and Chiang, Ping-yeh and Wen, Yuxin and Kirchenbauer, John and Chu, Hong-Min and Somepalli, "
        "Gowthami and Bartoldson, Brian R. and Kailkhura, Bhavya and Schwarzschild, Avi and Saha, Aniruddha and "
        "Goldblum, Micah and Geiping, Jonas and Goldstein, Tom",
        "{NEFTune}: Noisy Embeddings Improve Instruction Finetuning",
        2024,
        "International Conference on Learning Representations",
    ),
    "https://arxiv.org/abs/2312.01523": (
        "Yadav, Abhay Kumar and Singh, Arjun",
        "{SymNoise}: Advancing Language Model Fine-tuning with Symmetric Noise",
        2023,
        "arXiv preprint arXiv:2312.01523",
    ),
    "https://arxiv.org/abs/2106.14448": (
        "Liang, Xiaobo and Wu, Lijun and Li, Juntao and Wang, Yue and Meng, Qi and Qin, Tao and Chen, Wei and Zhang, "
        "Min and Liu, Tie-Yan",
        "{R-Drop}: Regularized Dropout for Neural Networks",
        2021,
        "Advances in Neural Information Processing Systems",
    ),
    "https://arxiv.org/abs/2008.03156": (
        "Aghajanyan, Armen and Shrivastava, Akshat and Gupta, Anchit and Goyal, Naman and Zettlemoyer, Luke and "
        "Gupta, Sonal",
        "Better Fine-Tuning by Reducing Representational Collapse",
        2021,
        "International Conference on Learning Representations",
    ),
    "https://arxiv.org/abs/2009.13818": (
        "Shen, Dinghan and Zheng, Mingzhi and Shen, Yelong and Qu, Yanru and Chen, Weizhu",
        "A Simple but Tough-to-Beat Data Augmentation Approach for Natural Language Understanding and Generation",
        2020,
        "arXiv preprint arXiv:2009.13818",
    ),
    "https://arxiv.org/abs/2106.00149": (
        "Chen, Jiaao and Shen, Dinghan and Chen, Weizhu and Yang, Diyi",
        "{HiddenCut}: Simple Data Augmentation for Natural Language Understanding with Better Generalizability",
        2021,
        "Annual Meeting of the Association for Computational Linguistics",
    ),
    "https://arxiv.org/abs/2107.04835": (
        "Hua, Hang and Li, Xingjian and Dou, Dejing and Xu, Cheng-Zhong and Luo, Jiebo",
        "Noise Stability Regularization for Improving {BERT} Fine-tuning",
        2021,
        "North American Chapter of the Association for Computational Linguistics",
    ),
    "https://arxiv.org/abs/2010.12638": (
        "Cheng, Hao and Liu, Xiaodong and Pereira, Lis and Yu, Yaoliang and Gao, Jianfeng",
        "Posterior Differential Regularization with f-divergence for Improving Model Robustness",
        2021,
        "North American Chapter of the Association for Computational Linguistics",
    ),
    "https://arxiv.org/abs/1909.11764": (
        "Zhu, Chen and Cheng, Yu and Gan, Zhe and Sun, Siqi and Goldstein, Tom and Liu, Jingjing",
        "{FreeLB}: Enhanced Adversarial Training for Natural Language Understanding",
        2020,
        "International Conference on Learning Representations",
    ),
    "https://arxiv.org/abs/1605.07725": (
        "Miyato, Takeru and Dai, Andrew M. and Goodfellow, Ian",
        "Adversarial Training Methods for Semi-Supervised Text Classification",
        2017,
        "International Conference on Learning Representations",
    ),
    "https://arxiv.org/abs/1706.06083": (
        "Madry, Aleksander and Makelov, Aleksandar and Schmidt, Ludwig and Tsipras, Dimitris and Vladu, Adrian",
        "Towards Deep Learning Models Resistant to Adversarial Attacks",
        2018,
        "International Conference on Learning Representations",
    ),
    "https://arxiv.org/abs/1911.03437": (
        "Jiang, Haoming and He, Pengcheng and Chen, Weizhu and Liu, Xiaodong and Gao, Jianfeng and Zhao, Tuo",
        "{SMART}: Robust and Efficient Fine-Tuning for Pre-trained Natural Language Models through Principled "
        "Regularized Optimization",
        2020,
        "Annual Meeting of the Association for Computational Linguistics",
    ),
    "https://arxiv.org/abs/1704.03976": (
        "Miyato, Takeru and Maeda, Shin-ichi and Koyama, Masanori and Ishii, Shin",
        "Virtual Adversarial Training: A Regularization Method for Supervised and Semi-Supervised Learning",
        2018,
        "IEEE Transactions on Pattern Analysis and Machine Intelligence",
    ),
    "https://arxiv.org/abs/2004.14543": (
        "Li, Linyang and Qiu, Xipeng",
        "Token-Aware Virtual Adversarial Training in Natural Language Understanding",
        2021,
        "AAAI Conference on Artificial Intelligence",
    ),
    "https://arxiv.org/abs/2403.05030": (
        "Casper, Stephen and Schulze, Lennart and Patel, Oam and Hadfield-Menell, Dylan",
        "Defending Against Unforeseen Failure Modes with Latent Adversarial Training",
        2024,
        "arXiv preprint arXiv:2403.05030",
    ),
    "https://arxiv.org/abs/2405.15589": (
        'Xhonneux, Sophie and Sordoni, Alessandro and G{\\"u}nnemann, Stephan and Gidel, Gauthier and Schwinn, Leo',
        "Efficient Adversarial Training in {LLMs} with Continuous Attacks",
        2024,
        "Advances in Neural Information Processing Systems",
    ),
    "https://arxiv.org/abs/2202.12024": (
        "Wu, Chuhan and Wu, Fangzhao and Qi, Tao and Huang, Yongfeng",
        "{NoisyTune}: A Little Noise Can Help You Finetune Pretrained Language Models Better",
        2022,
        "Annual Meeting of the Association for Computational Linguistics",
    ),
    "https://arxiv.org/abs/2409.14396": (
        "Li, Tao and He, Zhengbao and Li, Yujun and Wang, Yasheng and Shang, Lifeng and Huang, Xiaolin",
        "{Flat-LoRA}: Low-Rank Adaptation over a Flat Loss Landscape",
        2025,
        "International Conference on Machine Learning",
    ),
    "https://arxiv.org/abs/2403.02178": (
        "Chen, Changyu and Wang, Xiting and Lin, Ting-En and Lv, Ang and Wu, Yuchuan and Gao, Xin and Wen, Ji-Rong "
        "and Yan, Rui and Li, Yongbin",
        "Masked Thought: Simply Masking Partial Reasoning Steps Can Improve Mathematical Reasoning Learning of "
        "Language Models",
        2024,
        "Annual Meeting of the Association for Computational Linguistics",
    ),
    "https://arxiv.org/abs/2212.08853": (
        "Yuan, Hongyi and Yuan, Zheng and Tan, Chuanqi and Huang, Fei and Huang, Songfang",
        "{HyPe}: Better Pre-trained Language Model Fine-tuning with Hidden Representation Perturbation",
        2023,
        "Annual Meeting of the Association for Computational Linguistics",
    ),
    "https://arxiv.org/abs/1910.08902": (
        "Feyisetan, Oluwaseyi and Balle, Borja and Drake, Thomas and Diethe, Tom",
        "Privacy- and Utility-Preserving Textual Analysis via Calibrated Multivariate Perturbations",
        2020,
        "International Conference on Web Search and Data Mining",
    ),
    "https://arxiv.org/abs/1512.05287": (
        "Gal, Yarin and Ghahramani, Zoubin",
        "A Theoretically Grounded Application of Dropout in Recurrent Neural Networks",
        2016,
        "Advances in Neural Information Processing Systems",
    ),
    "https://arxiv.org/abs/1511.06349": (
        "Bowman, Samuel R. and Vilnis, Luke and Vinyals, Oriol and Dai, Andrew M. and Jozefowicz, Rafal and Bengio, "
        "Samy",
        "Generating Sentences from a Continuous Space",
        2016,
        "Conference on Computational Natural Language Learning",
    ),
    "https://arxiv.org/abs/2004.12239": (
        "Chen, Jiaao and Yang, Zichao and Yang, Diyi",
        "{MixText}: Linguistically-Informed Interpolation of Hidden Space for Semi-Supervised Text Classification",
        2020,
        "Annual Meeting of the Association for Computational Linguistics",
    ),
}


def bibtex(paper: str | None) -> str:
    """Return the BibTeX entry of a paper's address; without a paper, of this package."""
    if paper is None:
        return SELF
    if paper not in PAPERS:
        return f"@misc{{{re.sub(r'[^a-z0-9]+', '_', paper.lower()).strip('_')},\n  howpublished = {{{paper}}},\n}}"
    authors, title, year, venue = PAPERS[paper]
    key = authors.split(",")[0].lower() + str(year) + re.sub(r"[^a-z]", "", title.split()[0].lower())
    fields = {"title": title, "author": authors, "year": str(year), "booktitle": venue, "url": paper}
    lines = "".join(f"  {name} = {{{value}}},\n" for name, value in fields.items())
    return f"@inproceedings{{{key},\n{lines}}}"
