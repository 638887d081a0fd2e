import pkgutil
import subprocess
import sys

import bayes_share.evaluation


def test_evaluation_imports_no_slow_packages() -> None:
    modules = [name for _, name, _ in pkgutil.iter_modules(bayes_share.evaluation.__path__)]
    assert len(modules) >= 6
    imports = "; ".join(f"import bayes_share.evaluation.{module}" for module in modules)
    slow = "{'netcal', 'arviz', 'matplotlib', 'sklearn', 'pyro', 'torchvision'}"
    code = f"import sys; {imports}; print(sorted({slow} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
