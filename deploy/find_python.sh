#!/usr/bin/env bash
# Prints the Python in PATH to set up with: the first that is built for speed, else the first with all that set-up needs
# of it, else the first that runs at all, whose set-up says what is missing. Nothing: there is none.
cd "$(dirname "$0")/.."
for name in python3.11 python3.12 python3.13 python3.10 python3; do
  for python in $(type -ap "$name"); do
    fitness=$("$python" -c 'from deploy import setup; print(setup.fitness())' 2> /dev/null) ||
      { "$python" -c '' && fitness=none; } 2> /dev/null || continue
    case $fitness in
      quick) echo "$python"; exit ;;
      usable) usable=${usable:-$python} ;;
      none) runs=${runs:-$python} ;;
    esac
  done
done
echo "${usable:-$runs}"
