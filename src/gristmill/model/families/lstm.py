"""LSTM"""
from gristmill.model.family import Family
def no(*a): raise NotImplementedError
EXPORT = Family(fixed={"core":"lstm","norm":"rms","norm_epsilon":1e-6,"positions":"none","rotary_base":10000.0,"activation":"gelu","bias":True,"qk_norm":False},feed_forward_ratio=1.25,head_size_is_width_over_heads=True,architecture=no,to_config=no,from_config=no,to_state=no,from_state=no)
