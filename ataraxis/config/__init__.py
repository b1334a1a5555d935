"""YamlConfig: a dataclass and its YAML file.

The public names; each file of this package is one noun, and ruamel.yaml is imported
when a file is first read or written.
"""

from ataraxis.config.node import ConfigProblem
from ataraxis.config.yaml_config import YAML_EXCLUDE_METADATA, YamlConfig
from ataraxis.errors import ConfigError, ConfigWarning

__all__ = [
    "YAML_EXCLUDE_METADATA",
    "ConfigError",
    "ConfigProblem",
    "ConfigWarning",
    "YamlConfig",
]
