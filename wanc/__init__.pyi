from wanc.api import BuildResult as BuildResult
from wanc.api import VariantsError as VariantsError
from wanc.api import build as build
from wanc.api import build_variants as build_variants
from wanc.api import open as open
from wanc.api import open_graph as open_graph

__version__: str
