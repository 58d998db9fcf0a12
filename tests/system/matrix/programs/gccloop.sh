# Compiles and runs a program at each step; it says the number it was compiled with.
# In a lab both nodes have one kernel: the frozen copy that is left behind may hold the program open for writing a moment longer.
cd /tmp || exit 1
n=0
while :; do
    printf '#include <stdio.h>\nint main(void) { printf("%%d\\n", %d); return 0; }\n' "$n" > step.c
    gcc -O0 -o step step.c || { echo "step $n was not compiled"; exit 1; }
    until ./step 2> error; do
        grep -q 'Text file busy' error || { echo "step $n failed"; cat error; exit 1; }
        sleep 0.05
    done
    n=$((n+1))
    sleep 0.3
done
