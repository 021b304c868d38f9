# swift sft --external_plugins recipes/integrations/swift_noise.py --model MODEL --dataset DATA
from neft_zoo.integrations.swift import register

register({"name": "neft_uniform", "alpha": 5})
